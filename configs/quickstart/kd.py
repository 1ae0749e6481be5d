"""Plain mimicking of the demo's teacher: the baseline of distill.py, in the same recipe."""

from detectron2.config import LazyCall as L

from dense_kd import KD, Distiller, MethodSet, Teacher, get_config

student = get_config("quickstart/student.py")
teacher = get_config("quickstart/teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/kd"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/quickstart/teacher/model_final.pth"),
    methods=L(MethodSet)(kd=L(KD)(cls_weight=1.0, loc_weight=1.0)),
)
