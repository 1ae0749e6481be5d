"""FKD from the teacher of the demo: attention, and relations of all cells."""

from detectron2.config import LazyCall as L

from dense_kd import FKD, Distiller, MethodSet, Teacher, get_config

student = get_config("quickstart/student.py")
teacher = get_config("quickstart/teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/fkd"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/quickstart/teacher/model_final.pth"),
    methods=L(MethodSet)(fkd=L(FKD)()),
)
