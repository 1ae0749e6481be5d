"""DSI in the demo: P5 of the student imitates the last map of a network that is no detector, here
the backbone of the demo's teacher."""

from detectron2.config import LazyCall as L

from dense_kd import DSI, Distiller, FeatureTeacher, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
teacher = known_teacher("quickstart/teacher.py")
network = get_config("quickstart/teacher.py").model
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=teacher,
    methods=L(MethodSet)(
        dsi=L(DSI)(
            teacher=L(FeatureTeacher)(
                model=network.backbone.bottom_up,
                weights=teacher.weights,
                pixel_mean=network.pixel_mean,
                pixel_std=network.pixel_std,
                input_format="BGR",
                size_divisibility=32,
                output="res5",
            ),
            weight=1.0,
        )
    ),
)
