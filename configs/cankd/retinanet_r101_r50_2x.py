"""CanKD, RetinaNet R101 to R50, 2x: 37.4 -> 39.7 AP (by its authors), and 39.8 with
model.init_student=True. The learning rate is that of its student; theirs is twice that for each
image (0.005 for 4)."""

from detectron2.config import LazyCall as L

from dense_kd import CanKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_r50_2x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_r101_2x.py"),
    methods=L(MethodSet)(cankd=L(CanKD)(weight=10.0, omitted_levels=(-1,))),
)
