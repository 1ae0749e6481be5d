"""PGD (corrected, with the released alpha of FCOS) from the teacher of the demo, whose FPN and head
the student starts with."""

from detectron2.config import LazyCall as L

from dense_kd import PGD, Distiller, MethodSet, Teacher, get_config

student = get_config("quickstart/student.py")
teacher = get_config("quickstart/teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/pgd"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/quickstart/teacher/model_final.pth"),
    methods=L(MethodSet)(pgd=L(PGD)(alpha=0.04)),
    init_student=True,
)
