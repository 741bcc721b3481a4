"""Sentences of the exceptions in `bianque.errors`: what was expected, what came, what to do."""

from __future__ import annotations

from bianque.texts import Text

ERRORS: dict[str, Text] = {
    # settings
    "setting_invalid": Text(
        "环境变量 {name} 应为{expected_zh}，现在是 {got!r}；请改正或删除它后重新启动。",
        "Environment variable {name} must be {expected_en}, but it is {got!r}; correct or unset it and start again.",
    ),
    "setting_replaced": Text(
        "环境变量 {name} 已不再使用；请删除它，改用 {other}，然后重新启动。",
        "Environment variable {name} is no longer used; unset it, set {other} in its place and start again.",
    ),
    "setting_without_model": Text(
        "环境变量 {name} 只对 {other} 指定的模型有效，而 {other} 没有设置；请设置 {other}，或删除 {name}。",
        "Environment variable {name} is for the model that {other} names, and {other} is not set; set it, or unset {name}.",
    ),
    "server_not_running": Text(
        "{host} 的端口 {port} 上没有运行中的服务（{reason}）；请先用 python app.py 启动，或用 --url 指定服务的地址。",
        "No server runs on port {port} of {host} ({reason}); start one with python app.py, or name its address with --url.",
    ),
    "server_is_another": Text(
        "{host} 的端口 {port} 上运行的是别的程序；请用 --url 指定本项目服务的地址。",
        "Another program answers on port {port} of {host}; name the address of this project's server with --url.",
    ),
    "server_url_invalid": Text(
        "服务的地址应形如 http://127.0.0.1:7860，收到 {got!r}；请改正后重试。",
        "A server's address must be like http://127.0.0.1:7860, but it is {got!r}; correct it and try again.",
    ),
    "server_name_unknown": Text(
        "GRADIO_SERVER_NAME 应为本机的地址或能解析的主机名，而 {name!r} 无法解析；请改正或删除它后重新启动。",
        "GRADIO_SERVER_NAME must be an address of this machine or a name that resolves to one, but {name!r} does not "
        "resolve; correct or unset it and start again.",
    ),
    "server_refused": Text(
        "无法监听 {name} 的端口 {port}（{reason}）；请检查环境变量 GRADIO_SERVER_NAME 与 GRADIO_SERVER_PORT 后重新启动。",
        "Port {port} of {name} cannot be listened on ({reason}); check GRADIO_SERVER_NAME and GRADIO_SERVER_PORT and start "
        "again.",
    ),
    "port_in_use": Text(
        "端口 {port} 已被占用；请关闭占用它的程序，或设置环境变量 GRADIO_SERVER_PORT 换一个端口。",
        "Port {port} is already in use; stop the program that uses it or choose another with GRADIO_SERVER_PORT.",
    ),
    "share_failed": Text(
        "没能建立公开链接（{reason}）；请检查网络能否访问 gradio 的服务器，然后重新启动。本机仍可打开 {address}。",
        "No public link could be made ({reason}); check that gradio's servers can be reached and start again. "
        "On this machine {address} works all the same.",
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
        "这段对话已达上限（{limit}）；需要的话请先导出，再清空对话重新开始。",
        "This conversation has reached its limit ({limit}); export it if you need it, then clear it and start again.",
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
    "option_missing": Text(
        "{name} 应在 {low} 到 {high} 之间，现在是空的；请填写后再发送。",
        "{name} must be between {low} and {high}, but it is blank; fill it in and send again.",
    ),
    "mode_unknown": Text(
        "没有名为 {got!r} 的模式；请从 {expected} 中选择。",
        "There is no mode named {got!r}; choose one of {expected}.",
    ),
    "nothing_to_retry": Text(
        "还没有可以重试的回复；请先发送一条消息。",
        "There is no reply to retry yet; send a message first.",
    ),
    "rate_limited": Text(
        "消息发得太快了，请 {seconds} 秒后再试。",
        "Too many messages; please try again in {seconds} s.",
    ),
    "nothing_to_export": Text(
        "还没有可以导出的对话；请先发送一条消息。",
        "There is no conversation to export yet; send a message first.",
    ),
    "export_too_large": Text(
        "文件最大 {limit} MB，这个有 {got} MB，无法打开；请选择从本页导出的 JSON 文件。",
        "A file may have at most {limit} MB, but this one has {got} MB, so it cannot be opened; choose a JSON file "
        "exported by this page.",
    ),
    "export_options_ignored": Text(
        "对话已打开；文件里的这些设置无效，已改用默认值：{names}。",
        "The conversation is open; these settings in the file are not valid, and defaults stand in their place: {names}.",
    ),
    "export_invalid": Text(
        "这个文件不是本页导出的 JSON，无法打开。",
        "This file is no JSON exported by this page, so it cannot be opened.",
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
    "visitor_busy": Text(
        "您已有 {limit} 条回复在生成或排队；请等其中一条结束，或先停止它。",
        "You have {limit} replies running or waiting already; wait for one of them to end, or stop it first.",
    ),
    "worker_failed": Text(
        "生成引擎出错，已重新启动；请重试。",
        "The generation engine failed and has started anew; please try again.",
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
    "snapshot_tensor_invalid": Text(
        "权重文件 {file} 中的 {name} 含有无效数值（NaN 或无穷大），无法量化；请重新下载，或换一个模型。",
        "{name} in weight file {file} has numbers that are not finite and cannot be quantized; download the file again "
        "or use another model.",
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
    "snapshot_no_repo": Text(
        "在 {endpoint} 上找不到模型仓库 {repo_id}，或它是私有的；请检查名称，私有仓库请设置环境变量 HF_TOKEN。",
        "There is no model repo {repo_id} at {endpoint}, or it is private; check the name, and set HF_TOKEN for a "
        "private one.",
    ),
    "snapshot_no_revision": Text(
        "模型仓库 {repo_id} 没有版本 {revision}；请检查分支、标签或提交号。",
        "Model repo {repo_id} has no revision {revision}; check the branch, tag or commit.",
    ),
    "snapshot_no_access": Text(
        "{endpoint} 拒绝访问 {repo_id}；请在它的页面上接受使用条件，并把环境变量 HF_TOKEN 设为有读取权限的令牌。",
        "{endpoint} refuses access to {repo_id}; accept its conditions on its page and set HF_TOKEN to a token that may "
        "read it.",
    ),
    "snapshot_no_weights": Text(
        "模型仓库 {repo_id} 里没有权重文件（model*.safetensors 或 pytorch_model*.bin）；请换一个仓库或版本。",
        "Model repo {repo_id} has no weights (model*.safetensors or pytorch_model*.bin); name another repo or revision.",
    ),
    "snapshot_disk_full": Text(
        "下载 {repo_id} 还需要 {needed} 磁盘空间，{folder} 所在磁盘只剩 {free}；请清理磁盘，或用 HF_HOME 换一个位置。",
        "Fetching {repo_id} needs {needed} of disk space but {folder} has {free} free; make room, or choose another "
        "place with HF_HOME.",
    ),
    "snapshot_disk_filled": Text(
        "下载 {repo_id} 时磁盘写满了（{reason}）；请清理磁盘后再试，已下载的部分会保留。",
        "The disk filled up while {repo_id} was fetched ({reason}); make room and try again, what has arrived is kept.",
    ),
    "snapshot_cache_read_only": Text(
        "下载 {repo_id} 时无法写入 {folder}；请用 HF_HOME 指定一个可写的位置，或用本地文件夹代替。",
        "{repo_id} cannot be fetched, because {folder} cannot be written; choose another place with HF_HOME, or name a "
        "local folder.",
    ),
    "snapshot_client_closed": Text(
        "取得 {repo_id} 时，与 Hub 的连接被程序的其他部分关闭了（程序正在退出时也会这样）；请重新启动，已下载的部分会保留。",
        "The connection to the Hub was closed by another part of the program while {repo_id} was fetched, as happens "
        "while it ends; start again, what has arrived is kept.",
    ),
    "snapshot_file_corrupt": Text(
        "{repo_id} 的文件 {file} 两次下载后大小或校验值都不对；请稍后再试，或换一个镜像（HF_ENDPOINT）。",
        "File {file} of {repo_id} arrived twice with a wrong size or checksum; try later or use another mirror "
        "(HF_ENDPOINT).",
    ),
    "snapshot_cancelled": Text(
        "已停止下载 {repo_id}；下次会从这里继续。",
        "The download of {repo_id} was stopped; the next one goes on from here.",
    ),
    "precision_impossible": Text(
        "设备 {device} 不能以 {precision} 运行；请把 BIANQUE_PRECISION 设为 auto 或 {possible}。",
        "Device {device} cannot run {precision}; set BIANQUE_PRECISION to auto or to {possible}.",
    ),
    "gpu_refused": Text(
        "ZeroGPU 没有为这条回复提供 GPU（{reason}）；请稍后重试，或登录 Hugging Face 后在它的页面上使用。",
        "ZeroGPU gave no GPU for this reply ({reason}); try again later, or sign in to Hugging Face and use its page.",
    ),
    "memory_too_small": Text(
        "内存不够：即使用最低的精度、只服务一位访客，也需要 {needed} GB，可用 {free} GB；请换更大的机器，或设 BIANQUE_MODELS=demo。",
        "Too little memory: the lowest precision and one visitor need {needed} GB, and {free} GB are free; use a larger "
        "machine or set BIANQUE_MODELS=demo.",
    ),
    "host_memory_too_small": Text(
        "把模型载入 GPU 需要约 {needed} GB 主内存，可用 {free} GB；请换主内存更大的机器，或设 BIANQUE_MODELS=demo。",
        "Loading onto the GPU needs about {needed} GB of main memory, and {free} GB are free; use a machine with more, "
        "or set BIANQUE_MODELS=demo.",
    ),
    "memory_ran_out": Text(
        "载入 {name}（{precision}）时内存不足，也没有更低的精度可换；请减少 BIANQUE_NUM_SLOTS，或换更大的机器。",
        "Memory ran out while {name} was loaded at {precision}, and there is no lower precision; lower "
        "BIANQUE_NUM_SLOTS or use a larger machine.",
    ),
    "models_in_use": Text(
        "其他模型一直在使用，没能腾出内存来载入 {name}；请稍后再试。",
        "The other models stayed in use, so there was no room to load {name}; try again later.",
    ),
    "model_unknown": Text(
        "没有名为 {name!r} 的模型；相近的有 {near}。也可以写 Hub 仓库名（作者/名称）或本地文件夹。",
        "There is no model named {name!r}; near it are {near}. A Hub repo (owner/name) or a folder also serves.",
    ),
    "models_are_fixed": Text(
        "ZeroGPU 上的模型在启动时已经固定，运行中不能更换；请修改设置后重新启动。",
        "On ZeroGPU the models are fixed at the start and cannot be changed; change the settings and start again.",
    ),
    "switch_not_allowed": Text(
        "运行中不能更换模型：部署者没有开放这项功能（BIANQUE_MODEL_SWITCH=1）。",
        "Models cannot be changed while this runs: its owner has not allowed it (BIANQUE_MODEL_SWITCH=1).",
    ),
    "switch_running": Text(
        "有模型正在载入；请等它完成后再更换。",
        "A model is being loaded; wait until that is done, then change it.",
    ),
    "switch_cancelled": Text(
        "已按要求取消；已经下载的部分会留到下一次。",
        "cancelled as asked; what was downloaded is kept for the next time.",
    ),
    "switch_over": Text(
        "现在没有正在进行的更换，不用取消。",
        "No model is being changed now, so there is nothing to cancel.",
    ),
    "model_not_offered": Text(
        "这里不能选用模型 {name!r}；请从 {offered} 中选择。",
        "Model {name!r} cannot be chosen here; choose one of {offered}.",
    ),
    "precision_not_offered": Text(
        "{name} 不能以 {precision} 运行；请从 {possible} 中选择。",
        "{name} cannot be run at {precision} here; choose one of {possible}.",
    ),
    "model_too_large": Text(
        "{name} 以 {precision} 运行需要 {needed} GB 内存，可用 {free} GB；请选更低的精度或更小的模型。",
        "{name} needs {needed} GB of memory at {precision}, and {free} GB are free; choose a lower precision or a "
        "smaller model.",
    ),
    "device_unavailable": Text(
        "要求使用设备 {got}，但这台机器上没有；请改用 {available}。",
        "Device {got} was asked for but this machine does not have it; use {available} instead.",
    ),
    # adapters
    "adapter_unsupported": Text(
        "适配器 {folder} 的 {name} 是 {value}，这里只支持普通的 LoRA；请先用 peft 合并到原模型再使用。",
        "Adapter {folder} has {name} = {value}, but only plain LoRA is supported; merge it into its base with peft first.",
    ),
    "adapter_base_missing": Text(
        "适配器 {folder} 需要原模型 {base}，本机上没有；请放回原处，或改正 adapter_config.json 里的 base_model_name_or_path。",
        "Adapter {folder} needs its base {base}, which is not on this disk; put it back, or correct "
        "base_model_name_or_path in adapter_config.json.",
    ),
    "adapter_other_base": Text(
        "适配器 {folder} 是为 {expected} 训练的，{got} 是另一个模型（{reason}）；请使用训练时的原模型。",
        "Adapter {folder} was trained beside {expected}, and {got} is another model ({reason}); use the base it was "
        "trained beside.",
    ),
    "adapter_merge_quantized": Text(
        "{folder} 的权重是量化过的，合并后会失去训练的结果；请合并到浮点权重的原模型。",
        "The weights in {folder} are quantized, and merging into them would lose what was trained; merge into the float "
        "weights of the base.",
    ),
    # fine-tuning
    "finetune_merge_target": Text(
        "{folder} 已经存在且不为空；请换一个位置，以免混进别的权重文件。",
        "{folder} exists and is not empty; choose another place, so that no other weight files get mixed in.",
    ),
    "finetune_base_is_adapter": Text(
        "{folder} 是适配器，不是完整的模型；请先运行 python -m bianque finetune merge，再微调合并后的模型。",
        "{folder} is an adapter, not a whole model; run python -m bianque finetune merge first and fine-tune the result.",
    ),
    "finetune_not_samples": Text(
        "{file} 不是训练样本；请给出 bianque corpus build 生成的文件夹，或其中的 samples/*.parquet、*.jsonl。",
        "{file} holds no training samples; name a folder that `bianque corpus build` made, or one of its "
        "samples/*.parquet or *.jsonl.",
    ),
    "finetune_no_samples": Text(
        "{file} 里没有可以学习的样本（读到 {read} 行；{reasons}）；请检查文件，或放宽长度上限。",
        "{file} has no sample that can be learnt ({read} rows read; {reasons}); check the file or raise the limits of "
        "length.",
    ),
    "finetune_lengths_too_long": Text(
        "提示与回复最长共 {got} 个 token，而 {name} 最多 {limit} 个；请减小 --max-prompt-tokens 或 --max-target-tokens。",
        "Prompt and target may have {got} tokens together, but {name} takes at most {limit}; lower --max-prompt-tokens or "
        "--max-target-tokens.",
    ),
    "finetune_target_unknown": Text(
        "模型里没有名为 {got} 的线性层；请从 {expected} 中选择。",
        "The model has no linear layer named {got}; choose from {expected}.",
    ),
    "finetune_precision_impossible": Text(
        "设备 {device} 不能以 {precision} 训练；请改用 {possible}。",
        "Device {device} cannot train at {precision}; use {possible}.",
    ),
    "finetune_full_needs_floats": Text(
        "全参数微调的权重必须是 fp32，不能是 {precision}；请去掉 --base-precision，或改用 --method lora。",
        "Full fine-tuning keeps its weights in fp32, not {precision}; leave out --base-precision, or use --method lora.",
    ),
    "finetune_no_validation": Text(
        "提前停止需要验证集，这里没有；请给出 --validation，或用 --patience 0 关闭提前停止。",
        "Stopping early needs validation samples, and there are none; give --validation, or switch it off with "
        "--patience 0.",
    ),
    "finetune_folder_taken": Text(
        "{folder} 里已有一次微调；加 --resume 继续，加 --overwrite 重来，或换一个位置。",
        "{folder} holds a fine-tuning run; add --resume to go on with it, --overwrite to begin anew, or choose another "
        "place.",
    ),
    "corpus_not_a_corpus": Text(
        "{folder} 里不是语料，不会被删除；请换一个位置。",
        "{folder} holds something else than a corpus and is not deleted; choose another place.",
    ),
    "finetune_not_a_run": Text(
        "{folder} 里不是微调的结果，不会被删除；请换一个位置。",
        "{folder} holds something else than a fine-tuning run and is not deleted; choose another place.",
    ),
    "finetune_nothing_to_resume": Text(
        "{folder} 里没有可以继续的微调；请检查路径，或去掉 --resume。",
        "{folder} has no run to go on with; check the path, or leave out --resume.",
    ),
    "finetune_other_run": Text(
        "{folder} 里的微调与这次不同（{names}）；请用原来的参数继续，或加 --overwrite 重来。",
        "The run in {folder} differs from this one ({names}); go on with its own arguments, or begin anew with "
        "--overwrite.",
    ),
    "finetune_loss_not_finite": Text(
        "第 {step} 步的损失不是有限的数，训练已停止（样本行：{rows}）；请检查这些样本，降低学习率，或换用更高的精度。",
        "The loss of step {step} is not finite, so training stopped (rows of samples: {rows}); look at these samples, lower "
        "the learning rate, or use a higher precision.",
    ),
    "finetune_gradient_not_finite": Text(
        "第 {step} 步的梯度不是有限的数，训练在更新权重之前停止（样本行：{rows}）；请检查这些样本，降低学习率，或换用更高的精度。",
        "The gradients of step {step} are not finite, so training stopped before they reached the weights (rows of samples: "
        "{rows}); look at these samples, lower the learning rate, or use a higher precision.",
    ),
    # corpus and evaluation
    "package_missing": Text(
        "没有安装 {name}；请运行 pip install '.[{group}]'。",
        "{name} is not installed; run pip install '.[{group}]'.",
    ),
    "corpus_file_missing": Text(
        "找不到 {file}；请检查路径。",
        "There is no {file}; check the path.",
    ),
    "corpus_file_not_text": Text(
        "{file} 不是文本文件；请另存为 UTF-8 或 GB18030 的 CSV / JSON。",
        "{file} is not a text file; save it as CSV or JSON in UTF-8 or GB18030.",
    ),
    "corpus_nothing_to_read": Text(
        "{file} 里没有可读的文件（{expected}）；请检查路径。",
        "{file} has no file to read ({expected}); check the path.",
    ),
    "corpus_archive_damaged": Text(
        "压缩包 {file} 无法打开（{reason}）；请重新下载。",
        "The archive {file} cannot be opened ({reason}); download it again.",
    ),
    "corpus_columns_missing": Text(
        "{file} 的表头应有这些列：{expected}；实际是：{got}。请改正表头后重试。",
        "The header of {file} must have the columns {expected}, but it has {got}; correct the header and try again.",
    ),
    "corpus_part_missing": Text(
        "{source} 缺少 {part}；请给出包含它的文件夹。",
        "{source} lacks {part}; name the folder that holds it.",
    ),
    "corpus_source_unknown": Text(
        "没有名为 {got!r} 的语料；请从 {expected} 中选择。",
        "There is no set named {got!r}; choose one of {expected}.",
    ),
    "corpus_nothing_readable": Text(
        "{file} 没有一条记录能按 {source} 读取（第一处：{reason}）；它是否属于另一个语料？",
        "Not one record of {file} can be read as {source} (the first: {reason}); does it belong to another set?",
    ),
    "tokenizer_missing": Text(
        "{folder} 里没有分词器（spiece.model 或 ice_text.model）；请给出模型文件夹。",
        "{folder} has no tokenizer (spiece.model or ice_text.model); name a model's folder.",
    ),
    "data_line_invalid": Text(
        "{file} 第 {line} 行无法读取（{reason}）；请改正或删除这一行。",
        "Line {line} of {file} cannot be read ({reason}); correct or delete it.",
    ),
    "evaluation_no_samples": Text(
        "{file} 里没有可评测的样本；请给出 bianque corpus build 生成的 JSONL 文件。",
        "{file} has no samples to evaluate; name a JSON-lines file that `bianque corpus build` made.",
    ),
    "evaluation_other_run": Text(
        "{folder} 里是另一次评测（数据、模型或解码不同）；请换一个位置，或加上 --overwrite。",
        "{folder} holds another run (other data, model or decoding); choose another place, or add --overwrite.",
    ),
    "endpoint_unavailable": Text(
        "接口 {url} 不可用（{reason}）；请检查地址、模型名和密钥。",
        "The endpoint {url} is not available ({reason}); check its address, the model's name and the key.",
    ),
    "endpoint_answer_invalid": Text(
        "接口 {url} 的回答无法使用（{reason}）；请检查它是否与 OpenAI 的 chat/completions 兼容。",
        "The answer of {url} cannot be used ({reason}); check that it is compatible with OpenAI's chat/completions.",
    ),
    "battles_names_equal": Text(
        "有两组结果都叫 {name!r}；请写成 名称=路径 加以区分。",
        "Two runs are named {name!r}; tell them apart by writing NAME=PATH.",
    ),
    "battles_nothing_common": Text(
        "{names} 之间没有对同一输入的回答；请用相同的数据和种子评测后再配对。",
        "{names} have no answers to the same input; evaluate them on the same data and seed, then pair them.",
    ),
    "battles_not_judged": Text(
        "{folder} 里还没有可用的评判；请先运行 evaluate judge 或 evaluate arena。",
        "{folder} has no verdicts that count yet; run `evaluate judge` or `evaluate arena` first.",
    ),
    "battle_unknown": Text(
        "没有这一对内容；请刷新页面。",
        "There is no such pair; reload the page.",
    ),
    "output_exists": Text(
        "{folder} 已经存在且不为空；请换一个位置，或加上 --overwrite。",
        "{folder} exists and is not empty; choose another place, or add --overwrite.",
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
    "start_of_another_kind": Text(
        "--start 需要一个 {model} 的文件夹，其中应有 {file}，而 {folder} 没有；请换一个文件夹。",
        "--start needs the folder of a {model}, with {file} in it, and {folder} has none; name another folder.",
    ),
    "start_is_output": Text(
        "--start 与要写入的文件夹都是 {folder}；请用 --output 指定另一个文件夹。",
        "--start and the folder to be written are both {folder}; choose another with --output.",
    ),
    "training_without_cuda": Text(
        "--device cuda 需要一块 torch 能用的 NVIDIA GPU，这里没有；请去掉 --device，在 CPU 上训练。",
        "--device cuda needs an NVIDIA GPU that torch can use, and there is none here; leave --device out to train on "
        "the CPU.",
    ),
}
