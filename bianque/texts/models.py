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
    "state_waiting": Text("等待载入", "waiting"),
    "state_fetching": Text("正在从 Hub 获取", "being fetched from the Hub"),
    "state_loading": Text("正在载入", "loading"),
    "state_ready": Text("就绪", "ready"),
    "state_failed": Text("载入失败", "failed"),
}
