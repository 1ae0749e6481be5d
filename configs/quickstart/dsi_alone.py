"""DSI in the demo without a detector as teacher: a network is all that teaches, here the backbone
of the demo's teacher. Otherwise dsi.py."""

from detectron2.config import LazyCall as L

from dense_kd import DSI, Distiller, FeatureTeacher, MethodSet, get_config, recipe

student = get_config("quickstart/student.py")
trained = get_config("quickstart/teacher.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=None,
    methods=L(MethodSet)(
        dsi=L(DSI)(
            teacher=L(FeatureTeacher)(
                model=trained.model.backbone.bottom_up,
                weights=f"{trained.train.output_dir}/model_final.pth",
                pixel_mean=trained.model.pixel_mean,
                pixel_std=trained.model.pixel_std,
                input_format="BGR",
                size_divisibility=32,
                output="res5",
            ),
            weight=1.0,
        )
    ),
)
