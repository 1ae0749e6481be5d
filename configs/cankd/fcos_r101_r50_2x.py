"""CanKD, FCOS R101 to R50, 2x: 38.5 -> 42.4 AP (by its authors), and the same with
model.init_student=True. The teacher and the student of the 38.5 AP are plain FCOS; the student here
is of a stronger recipe, with centre sampling, normalised distances and GIoU. The learning rate is
that of its student; theirs is twice that for each image (0.005 for 4)."""

from detectron2.config import LazyCall as L

from dense_kd import CanKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("fcos/cankd_r50_2x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("fcos/mmdet_r101_2x_ms.py"),
    methods=L(MethodSet)(cankd=L(CanKD)(weight=10.0, omitted_levels=(-1,))),
)
