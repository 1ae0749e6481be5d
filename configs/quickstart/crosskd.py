"""CrossKD from the teacher of the demo: of the two blocks of its towers, the second is reused."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("quickstart/student.py")
teacher = get_config("quickstart/teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/crosskd"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/quickstart/teacher/model_final.pth"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=1, cls_weight=1.0, loc_weight=1.0)),
)
