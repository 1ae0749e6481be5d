"""FRS from the teacher of the demo: the pyramid where the teacher has scores."""

from detectron2.config import LazyCall as L

from dense_kd import FRS, Distiller, MethodSet, Teacher, get_config

student = get_config("quickstart/student.py")
teacher = get_config("quickstart/teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/frs"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/quickstart/teacher/model_final.pth"),
    methods=L(MethodSet)(frs=L(FRS)()),
)
