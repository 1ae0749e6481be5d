"""Ways in from other projects: configs of stock detectron2, parts of torchvision's detectors."""
