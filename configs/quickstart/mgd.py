"""MGD from the teacher of the demo: its pyramid is generated from that of the student, in part."""

from detectron2.config import LazyCall as L

from dense_kd import MGD, Distiller, MethodSet, Teacher, get_config

student = get_config("quickstart/student.py")
teacher = get_config("quickstart/teacher.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/quickstart/mgd"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/quickstart/teacher/model_final.pth"),
    # The loss is a sum over channels and cells, of which COCO has 267 times as many: 2e-5 there.
    methods=L(MethodSet)(mgd=L(MGD)(weight=5e-3, masked_ratio=0.65)),
    init_student=True,
)
