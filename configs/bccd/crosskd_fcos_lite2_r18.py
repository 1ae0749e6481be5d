"""CrossKD on BCCD from FCOS with EfficientNet-Lite2 (fcos_lite2.py, to be trained first): the
recipe of fcos_r18.py, and two more losses. Of the two blocks of the towers, the second is reused;
weights and losses are those of crosskd/fcos_r101_r50_2x_ms.py."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("bccd/fcos_r18.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("bccd/fcos_lite2.py"),
    methods=L(MethodSet)(
        crosskd=L(CrossKD)(
            depth=1, cls_weight=0.4, loc_weight=0.75, loc_loss="iou", normalize="quality"
        )
    ),
)
