"""MGD, RetinaNet X101-64x4d to R50, 2x: 37.4 -> 41.0 AP (by its authors). The released config has
the teacher of 36 epochs (41.6 AP), with which it has 41.4:
model.teacher.weights=mmdet://retinanet_x101_64x4d_fpn_mstrain_3x_coco."""

from detectron2.config import LazyCall as L

from dense_kd import MGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_r50_2x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_x101_1x.py"),
    methods=L(MethodSet)(mgd=L(MGD)(weight=2e-5, masked_ratio=0.65)),
    init_student=True,
)
