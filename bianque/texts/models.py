"""Which models answer, why these, and how far their loading is."""

from __future__ import annotations

from bianque.texts import Text

MODELS: dict[str, Text] = {
    "plan_demo_chosen": Text(
        "按设置（BIANQUE_MODELS=demo）使用随项目附带的演示小模型",
        "the small demonstration models that come with the project were chosen (BIANQUE_MODELS=demo)",
    ),
    "plan_no_gpu": Text(
        "这台机器没有 GPU，因此使用随项目附带的演示小模型",
        "this machine has no GPU, so the small demonstration models that come with the project are used",
    ),
    "plan_gpu": Text(
        "检测到 GPU，因此使用 Hub 上发布的真实模型",
        "a GPU was found, so the published models from the Hub are used",
    ),
    "plan_real_chosen": Text(
        "按设置（BIANQUE_MODELS=real）使用 Hub 上发布的真实模型",
        "the published models from the Hub were chosen (BIANQUE_MODELS=real)",
    ),
    "plan_named": Text(
        "使用环境变量指定的模型",
        "the models named by environment variables are used",
    ),
    "plan_fallback": Text(
        "真实模型没能载入，因此暂用随项目附带的演示小模型。原因：{reason}",
        "the published models could not be loaded, so the small demonstration models stand in. Reason: {reason}",
    ),
    "plan_unknown": Text("正在检查这台机器", "this machine is being looked at"),
    # which precision, and why
    "precision_best": Text(
        "{device}（可用 {free} GB）：{models}，{visitors} 位访客同时使用约需 {needed} GB，放得下，因此用此设备上最好的精度",
        "{device} with {free} GB free: {models}; {visitors} visitors at once need about {needed} GB, which fits at the "
        "best precision for this device",
    ),
    "precision_reduced": Text(
        "{device}（可用 {free} GB）：{models}，{visitors} 位访客同时使用约需 {needed} GB；更高的精度要 {better} GB，"
        "而模型可用的只有 {budget} GB",
        "{device} with {free} GB free: {models}; {visitors} visitors at once need about {needed} GB; the next higher "
        "precision would need {better} GB of the {budget} GB that models may take",
    ),
    "precision_asked": Text(
        "{device}（可用 {free} GB）：{models}，按设置使用 {asked}，{visitors} 位访客同时使用约需 {needed} GB",
        "{device} with {free} GB free: {models}; {asked} was asked for, and {visitors} visitors at once need about "
        "{needed} GB",
    ),
    "precision_lowered": Text(
        "{device}（可用 {free} GB）：设置要求的 {asked} 需 {better} GB，而模型可用的只有 {budget} GB，因此改用 {models}，"
        "{visitors} 位访客同时使用约需 {needed} GB",
        "{device} with {free} GB free: {asked} was asked for, but it needs {better} GB of the {budget} GB that models "
        "may take, so {models} are used; {visitors} visitors at once need about {needed} GB",
    ),
    "precision_gave_way": Text(
        "{asked} 内存不足，已改用 {taken}",
        "memory ran out at {asked}, so {taken} is used",
    ),
    # how far each model is
    "state_absent": Text("尚未载入", "not loaded"),
    "state_downloading": Text("正在下载", "downloading"),
    "state_loading": Text("正在载入", "loading"),
    "state_ready": Text("就绪", "ready"),
    "state_failed": Text("载入失败", "failed"),
    "state_seconds_left": Text("剩余 {left}", "{left} left"),
    # python -m bianque models
    "models_machine": Text("这台机器：{device}，可用 {free} GB", "This machine: {device}, {free} GB free"),
    "models_name": Text("模型", "model"),
    "models_use": Text("用途", "use"),
    "models_architecture": Text("架构", "architecture"),
    "models_source": Text("来源", "source"),
    "models_parameters": Text("参数", "parameters"),
    "models_on_disk": Text("磁盘", "on disk"),
    "models_use_asker": Text("问", "asks"),
    "models_use_adviser": Text("答", "advises"),
    "models_use_listener": Text("听", "listens"),
    "models_embedded": Text("随项目附带", "embedded"),
    "models_disk_absent": Text("未下载", "no"),
    "models_disk_partial": Text("不完整", "partial"),
    "models_disk_complete": Text("有", "yes"),
    "models_unknown_size": Text("下载后才知道大小", "its size is known once it is here"),
    "models_fits": Text("{precision} 可同时服务 {visitors} 人", "{precision} serves {visitors} at once"),
    "models_too_large": Text(
        "{precision} 放不下（需 {needed} GB，模型可用 {free} GB）",
        "{precision} does not fit (needs {needed} GB of the {free} GB that models may take)",
    ),
    "models_impossible": Text("{precision} 此设备不支持", "{precision} is not possible on this device"),
    "hardware_name": Text("硬件", "hardware"),
    "hardware_models": Text("模型", "models"),
    "hardware_precision": Text("精度", "precision"),
    "hardware_visitors": Text("同时服务人数", "visitors at once"),
    "hardware_memory": Text("预计内存", "expected memory"),
}
