"""BCKD, RetinaNet R101 (detectron2's zoo, 40.4 AP) to R50, 2x, short side 640 to 800: detectron2's
recipe, in no table. We have no AP of it."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("retinanet/r50_2x_ms.py")
teacher = get_config("retinanet/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/retinanet_r101_r50_2x_ms"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model,
        weights="detectron2://COCO-Detection/retinanet_R_101_FPN_3x/190397697/model_final_971ab9.pkl",
    ),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
