"""Sentences of the exceptions in `bianque.errors`: what was expected, what came, what to do."""

from __future__ import annotations

from bianque.texts import Text

ERRORS: dict[str, Text] = {
    # settings
    "setting_invalid": Text(
        "环境变量 {name} 应为{expected_zh}，现在是 {got!r}；请改正或删除它后重新启动。",
        "Environment variable {name} must be {expected_en}, but it is {got!r}; correct or unset it and start again.",
    ),
    "port_in_use": Text(
        "端口 {port} 已被占用；请关闭占用它的程序，或设置环境变量 GRADIO_SERVER_PORT 换一个端口。",
        "Port {port} is already in use; stop the program that uses it or choose another with GRADIO_SERVER_PORT.",
    ),
    # what a visitor sends
    "message_empty": Text(
        "消息是空的；请先描述您的情况，再发送。",
        "The message is empty; please describe your situation before sending.",
    ),
    "message_too_long": Text(
        "消息最多 {limit} 字，收到 {got} 字；请缩短或分几次发送。",
        "A message may have at most {limit} characters, but {got} came; please shorten it or send it in parts.",
    ),
    "message_without_words": Text(
        "消息里没有文字，只有表情或符号；请用文字描述您的情况。",
        "The message has only emoji or symbols; please describe your situation in words.",
    ),
    "history_invalid": Text(
        "对话记录的格式不对（{reason_zh}）；请清空对话后重新开始。",
        "The conversation history is malformed ({reason_en}); please clear the conversation and start again.",
    ),
    "conversation_too_long": Text(
        "这段对话已达上限（{limit}）；请清空对话后重新开始。",
        "This conversation has reached its limit ({limit}); please clear it and start again.",
    ),
    "unexpected_error": Text(
        "出了意料之外的问题，回复已中断；请重试。",
        "Something unexpected went wrong and the reply was stopped; please try again.",
    ),
    "reply_running": Text(
        "上一条回复还没有写完；请等它结束，或先按“停止”。",
        "The last reply is still being written; wait for it to end, or stop it first.",
    ),
    "option_out_of_range": Text(
        "{name} 应在 {low} 到 {high} 之间，收到 {got}；请调整后再发送。",
        "{name} must be between {low} and {high}, but {got} came; adjust it and send again.",
    ),
    "mode_unknown": Text(
        "没有名为 {got!r} 的模式；请从 {expected} 中选择。",
        "There is no mode named {got!r}; choose one of {expected}.",
    ),
    "nothing_to_retry": Text(
        "还没有可以重试的回复；请先发送一条消息。",
        "There is no reply to retry yet; send a message first.",
    ),
    # engine
    "queue_full": Text(
        "排队已满（{waiting} 人在等）；请过一会儿再试。",
        "The queue is full ({waiting} waiting); please try again in a moment.",
    ),
    "prompt_too_long": Text(
        "提示最多 {limit} 个 token，现在有 {got} 个；请缩短最新一条消息。",
        "A prompt may have at most {limit} tokens, but this one has {got}; please shorten the newest message.",
    ),
    "logits_not_finite": Text(
        "模型这一次的计算出现了无效数值，回复已中断；请重试，若再次出现请换用更高精度。",
        "The model produced invalid numbers and this reply was stopped; try again, or use a higher precision.",
    ),
    "computation_failed": Text(
        "这次计算失败了（{reason}），其他对话不受影响；请重试，或缩短对话。",
        "This computation failed ({reason}); other conversations go on. Try again, or shorten the conversation.",
    ),
    "out_of_memory": Text(
        "内存不足，这条回复已中断；请缩短对话、减少同时使用的人数，或换用更低的精度。",
        "Memory ran out and this reply was stopped; shorten the conversation, let fewer people in at once, "
        "or use a lower precision.",
    ),
    "engine_stopped": Text(
        "生成引擎已停止；请刷新页面或稍后再试。",
        "The generation engine has stopped; reload the page or try again later.",
    ),
    # models
    "model_loading": Text(
        "模型仍在载入（{name}）；请稍候再发送。",
        "The model is still loading ({name}); please wait a moment before sending.",
    ),
    "model_unavailable": Text(
        "模型 {name} 现在不可用：{reason_zh}",
        "Model {name} is not available: {reason_en}",
    ),
    "model_not_planned": Text(
        "没有为「{job}」准备模型；请设置环境变量 {variable}（Hub 仓库名或本地文件夹）后重新启动，或换一个模式。",
        "No model is set for the {job}; set {variable} to a Hub repo or a local folder and start again, or use another mode.",
    ),
    "load_failed": Text(
        "载入时出错（{reason}）；请查看日志。",
        "loading failed ({reason}); see the log.",
    ),
    "reply_empty": Text(
        "模型这一次没有写出内容；请重试，或换一种说法。",
        "The model wrote nothing this time; try again or put it another way.",
    ),
    "snapshot_folder_missing": Text(
        "找不到模型文件夹 {folder}；请检查路径，或下载模型后再启动。",
        "Model folder {folder} does not exist; check the path or download the model, then start again.",
    ),
    "snapshot_file_missing": Text(
        "模型文件夹 {folder} 缺少文件 {file}；请重新下载该文件。",
        "Model folder {folder} lacks the file {file}; download that file again.",
    ),
    "snapshot_shard_damaged": Text(
        "权重文件 {file} 已损坏或不完整；请删除后重新下载。",
        "Weight file {file} is damaged or incomplete; delete it and download it again.",
    ),
    "snapshot_wrong_architecture": Text(
        "{folder} 的 config.json 应为 {expected} 架构，实际是 {got}；请换成对应的模型。",
        "config.json in {folder} should describe the {expected} architecture, but it says {got}; use a matching model.",
    ),
    "snapshot_config_invalid": Text(
        "{folder} 的 {file} 无法读取（{reason}）；请重新下载该文件。",
        "{file} in {folder} cannot be read ({reason}); download that file again.",
    ),
    "config_key_unknown": Text(
        "config.json 里有未知的键 {name}（值 {value!r}），它可能改变模型的计算；请使用未改动的模型，或删除该键。",
        "config.json has the unknown key {name} (value {value!r}), which may change what the model computes; use the "
        "unmodified model or remove the key.",
    ),
    "config_value_unsupported": Text(
        "config.json 的 {name} 应为 {expected}，实际是 {value!r}，这里不支持；请使用未量化、未加前缀的原始模型。",
        "{name} in config.json must be {expected}, but it is {value!r}, which is not supported; use the original model "
        "without quantization or prefixes.",
    ),
    "snapshot_tensors_mismatch": Text(
        "{folder} 的权重与结构不符：缺少 {missing}；多出 {unexpected}；形状不符 {misshapen}。请使用完整的模型。",
        "Weights in {folder} do not fit the model: missing {missing}; unexpected {unexpected}; wrong shape {misshapen}. "
        "Use a complete model.",
    ),
    "snapshot_not_cached": Text(
        "无法从 Hub 取得 {repo_id}（{reason}）；请检查网络与名称，或用本地文件夹代替。",
        "{repo_id} could not be fetched from the Hub ({reason}); check the network and the name, or name a local folder.",
    ),
    "device_unavailable": Text(
        "要求使用设备 {got}，但这台机器上没有；请改用 {available}。",
        "Device {got} was asked for but this machine does not have it; use {available} instead.",
    ),
    # demonstration models
    "knowledge_invalid": Text(
        "知识文件 {file} 有误：{reason}。",
        "Knowledge file {file} is not valid: {reason}.",
    ),
    "training_without_end": Text(
        "训练需要一个终点；请给出 --steps 或 --minutes。",
        "A training needs an end; give --steps or --minutes.",
    ),
}
