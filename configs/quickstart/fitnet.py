"""FitNet from a GFL that is twice as wide; train gfl_teacher.py first."""

from detectron2.config import LazyCall as L

from dense_kd import Distiller, FitNet, MethodSet, Teacher, get_config

student = get_config("quickstart/gfl.py")
teacher = get_config("quickstart/gfl_teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/fitnet"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model, weights="output/quickstart/gfl_teacher/model_final.pth"
    ),
    methods=L(MethodSet)(fitnet=L(FitNet)()),
)
