"""Labels, buttons, hints and states of the page."""

from __future__ import annotations

from bianque.texts import Text

PAGE: dict[str, Text] = {
    # head
    "page_title": Text("扁鹊 BianQue · 会追问的健康咨询", "BianQue 扁鹊 · health chat that asks back"),
    "page_description": Text(
        "会追问的中文健康咨询：先问清情况，再给建议。研究演示，不是医生；内容由 AI 生成，仅供参考。",
        "Chinese health chat that asks first, then advises. A research demo, not a doctor; AI-generated content, for "
        "reference only.",
    ),
    "page_name": Text("扁鹊 BianQue", "BianQue 扁鹊"),
    "page_tagline": Text("中文健康咨询 · 先追问，再建议", "Chinese health chat · asks first, then advises"),
    # conversation
    "chat_label": Text("对话", "Conversation"),
    "message_placeholder": Text("描述您的不适……", "Your complaint, in Chinese…"),
    "message_label": Text("消息", "Message"),
    "send_button": Text("发送", "Send"),
    "stop_button": Text("停止", "Stop"),
    "examples_label": Text("可以这样问", "For example"),
    # who wrote a reply
    "author_greeting": Text("扁鹊", "BianQue"),
    "author_greeting_soulchat": Text("灵心", "SoulChat"),
    "author_asker": Text("问 · {model}", "Asks · {model}"),
    "author_adviser": Text("答 · {model}", "Advises · {model}"),
    "author_listener": Text("听 · {model}", "Listens · {model}"),
    # how a reply is doing
    "reply_thinking": Text("正在思考", "Thinking"),
    "reply_queued": Text("排队第 {position} 位", "number {position} in the queue"),
    "reply_wait": Text("预计约 {seconds} 秒", "about {seconds} s"),
    "reply_late": Text("已到时间上限", "time limit reached"),
    "reply_stopped": Text("已停止", "stopped"),
    "reply_cut": Text("已到长度上限", "length limit reached"),
    "reply_trimmed": Text("对话较长，最早 {count} 轮未参与本次回答", "the oldest {count} turns were left out"),
    "reply_dose": Text("含剂量，请勿照做，用药请问医生", "names a dose: do not follow it, ask a doctor"),
    "older_button": Text("显示更早的消息", "Show older messages"),
    # the doctor's way of asking
    "asking_number": Text("第 {number} 问", "question {number}"),
    "asking_limit_line": Text("最多 {limit} 问", "at most {limit}"),
    "advise_button": Text("请直接给建议", "Advise me now"),
    "summary_label": Text("就诊小结：您说过的话", "Summary for your doctor: what you said"),
    "summary_hint": Text("可以修改、复制，看医生时带上", "Correct it, copy it, take it to a doctor"),
    "summary_complaint": Text("主诉", "Complaint"),
    "summary_duration": Text("多久", "Since when"),
    "summary_accompanying": Text("伴随", "Also"),
    "summary_history": Text("既往", "History"),
    "summary_medication": Text("用药", "Medicines"),
    "summary_other": Text("其他", "Other"),
    "summary_origin": Text(
        "（由程序从本人的话中摘录，未经医生核对）",
        "(Taken by a program from the visitor's own words; no doctor has checked it.)",
    ),
    # which models answer
    "status_loading": Text("模型载入中", "Models are loading"),
    "status_demonstration": Text("演示小模型正在回答", "Small demonstration models answer"),
    "status_demonstration_hint": Text(
        "只用于展示问诊流程，回答质量远不及真实模型。",
        "They show how a consultation runs; their answers are far from those of the real models.",
    ),
    "status_real": Text("真实模型正在回答", "The published models answer"),
    "status_failed": Text("有模型未能载入", "A model could not be loaded"),
    # choices
    "mode_label": Text("由谁来回答", "Who answers"),
    "mode_joint": Text("联合 · 先问后答", "Joint · asks, then advises"),
    "mode_bianque-1.0": Text("扁鹊-1.0 · 只追问", "BianQue-1.0 · only asks"),
    "mode_bianque-2.0": Text("扁鹊-2.0 · 只建议", "BianQue-2.0 · only advises"),
    "mode_soulchat": Text("灵心 SoulChat · 倾听", "SoulChat · listens"),
    "settings_label": Text("生成参数", "Generation settings"),
    "temperature_label": Text("温度 temperature", "Temperature"),
    "temperature_hint": Text("越高越多样；0 为每次相同", "Higher is more varied; 0 is always the same"),
    "top_p_label": Text("核采样 top_p", "Top-p"),
    "top_p_hint": Text("只从累计概率达到此值的词中选", "Choose only among words that make up this probability"),
    "max_new_tokens_label": Text("回复最大长度（token）", "Longest reply (tokens)"),
    "max_new_tokens_hint": Text(
        "写到这么长就停，一个 token 约一个字", "The reply ends there; a token is about one character"
    ),
    "asking_limit_label": Text("最多追问几次", "Most questions"),
    "asking_limit_hint": Text("联合模式问够这么多次就给建议；0 为不追问", "Joint mode then advises; 0 never asks"),
    "greedy_label": Text("贪心解码", "Greedy decoding"),
    "greedy_hint": Text(
        "每次取最可能的词，相同输入得到相同回复", "Always the likeliest word: equal input, equal reply"
    ),
    "reset_button": Text("恢复本模式的默认值", "Back to this mode's defaults"),
    "seed_label": Text("随机种子（可空）", "Seed (optional)"),
    "seed_placeholder": Text("每次随机", "random each time"),
    "seed_hint": Text("填写后，相同输入得到相同回复", "With a seed, equal input gives equal replies"),
    # which model does a job, where the owner lets people choose
    "choice_label": Text("模型与精度", "Models and precision"),
    "choice_note": Text(
        "更换对所有访客生效；换好之前，仍由现在的模型回答。",
        "A change is for all visitors; until it is done, the present model answers.",
    ),
    "choice_job": Text("用途", "Use"),
    "choice_asker": Text("问", "Asks"),
    "choice_adviser": Text("答", "Advises"),
    "choice_listener": Text("听", "Listens"),
    "choice_model": Text("模型", "Model"),
    "choice_serving": Text("现用", "in use"),
    "choice_complete": Text("已在本机", "on this machine"),
    "choice_partial": Text("已下载一部分", "partly downloaded"),
    "choice_absent": Text("需要下载", "has to be downloaded"),
    "choice_precision": Text("精度", "Precision"),
    "choice_auto": Text("自动（放得下的最好精度）", "automatic (the best that fits)"),
    "choice_fits": Text(
        "{precision}：约需 {gb} GB，{visitors} 人同时用", "{precision}: about {gb} GB, {visitors} at once"
    ),
    "choice_too_large": Text("{precision}：放不下，约需 {gb} GB", "{precision}: does not fit, about {gb} GB"),
    "choice_apply": Text("更换", "Change"),
    "choice_cancel": Text("取消更换", "Cancel the change"),
    "choice_unknown": Text("正在检查这台机器，请稍候。", "This machine is being looked at; please wait."),
    "choice_now": Text("现在", "Now"),
    "choice_incoming": Text("正在换成", "Changing to"),
    "choice_failed": Text("没能更换，仍由现在的模型回答", "Not changed; the present model goes on"),
    # conversations kept in the browser
    "kept_label": Text("我的对话", "My conversations"),
    "kept_new": Text("新对话", "New conversation"),
    "kept_agree": Text("保存在这个浏览器里", "Keep them in this browser"),
    "kept_agree_hint": Text(
        "只存在您的设备上；公用电脑请勿勾选。取消勾选会删除已保存的对话。",
        "On your device only; leave it off on a shared computer. Unticking deletes what was kept.",
    ),
    "kept_list": Text("已保存", "Kept"),
    "kept_forget": Text("全部删除", "Delete everything"),
    # sharing
    "share_label": Text("导出与分享", "Export and share"),
    "share_paper": Text("打印 / PDF", "Print / PDF"),
    "share_open": Text("打开导出的 JSON", "Open an exported JSON"),
    "share_other_models": Text(
        "这段对话由 {theirs} 写成；接下来由 {ours} 回答。",
        "This conversation was written by {theirs}; what follows is by {ours}.",
    ),
    "share_question": Text("链接里的第一个问题（可空）", "First question in the link (optional)"),
    "share_question_hint": Text(
        "链接只带设置和这句话，不带对话", "The link carries settings and this, never the conversation"
    ),
    "share_make": Text("生成链接", "Make a link"),
    "share_link": Text("链接", "Link"),
    "share_address": Text("这个页面的公开地址", "Public address of this page"),
    "export_time": Text("时间", "Time"),
    "export_models": Text("模型", "Models"),
    "export_version": Text("程序版本", "Version"),
    "export_parameters": Text("参数", "Parameters"),
    "export_model": Text(
        "（版本 {revision}，{precision}，{device}，提示模板 {template}）",
        " (revision {revision}, {precision}, {device}, prompts {template})",
    ),
    "export_revision_unknown": Text("未知（本地文件）", "unknown (local files)"),
    "export_visitor": Text("用户", "Visitor"),
    # the picture for a doctor
    "share_picture": Text("图片（给医生看）", "Picture for a doctor"),
    "picture_heading": Text("给医生看的图片", "Picture for a doctor"),
    "picture_hint": Text(
        "在手机上长按图片即可保存；图片只在您的设备上生成。",
        "On a phone, press and hold a picture to save it. It is made on your device only.",
    ),
    "picture_page": Text("第 {page} 页，共 {pages} 页", "page {page} of {pages}"),
    "picture_save": Text("保存第 {page} 页", "Save page {page}"),
    "picture_share": Text("发送…", "Send…"),
    "picture_close": Text("关闭", "Close"),
    # emergency
    "emergency_call_120": Text("拨打 120", "Call 120"),
    "emergency_call_12356": Text("拨打 12356", "Call 12356"),
    "emergency_title": Text("请先看这里", "Please read this first"),
    # gradio's own labels that it leaves in English
    "chatbot.copy_message": Text("复制消息", "Copy message"),
    "chatbot.copied_message": Text("已复制", "Copied"),
    # those that it has no entry for; `page.js` puts them in the place of its words
    "label_copy": Text("复制", "Copy"),
    "label_copy_conversation": Text("复制整段对话", "Copy conversation"),
    "label_reply": Text("回复：", "Reply: "),
    "label_said": Text("您说：", "You said: "),
    "label_footer": Text("页脚", "Footer"),
}
