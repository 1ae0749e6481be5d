"""PKD, CrossKD, Table 8, RetinaNet Swin-T to R50, 1x: 36.5 -> 37.2 AP (AP50 56.7, AP75 39.5, small
21.2, medium 41.2, large 49.7). Weight and levels are those of PKD's RetinaNet; the paper does not
name them."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_swin_t_1x.py"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=10.0, omitted_levels=(-1,))),
)
