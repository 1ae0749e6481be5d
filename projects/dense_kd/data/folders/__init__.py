"""Datasets of one's own: folders in the format of COCO, Pascal VOC or YOLO.

What is recognised, below any folder:

- **COCO**: one JSON file, or one for each of train, val and test, whose name or folder says which
  (``annotations/instances_train2017.json``, ``train/_annotations.coco.json``). Images are looked
  for by their names. ``iscrowd`` and ``ignore`` mark regions that are neither learnt nor counted.
- **Pascal VOC**: folders of XML files, with lists in ``ImageSets/Main`` or without; images have
  the names of the XML files. As for detectron2, coordinates begin with 1, and objects marked
  ``difficult`` are ordinary ones.
- **YOLO**: text files in ``labels/`` for ``images/``, or beside the images; classes are named by
  ``data.yaml`` or ``classes.txt``. Images without labels are empty.

A YAML file describes anything else, see :mod:`dense_kd.data.folders.description`.

Files and boxes that cannot be used are left out, what can be mended is, and
:class:`~dense_kd.data.folders.problems.Problems` lists each. Boxes are those of the image as
detectron2 reads it: turned by its EXIF orientation, with the size of the file
(:func:`~dense_kd.data.folders.boxes.cleaned_objects`).
"""

from .dataset import OwnDataset, read_dataset
from .problems import Problem, Problems
from .writing import write_annotations

__all__ = ["OwnDataset", "Problem", "Problems", "read_dataset", "write_annotations"]
