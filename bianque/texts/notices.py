"""Medical notices, emergency texts and labels that duty requires (disclaimer, AI label, licences).

The psychological line 12356 answers at least 18 hours a day since 2025-05-01; no text may promise more.
"""

from __future__ import annotations

from bianque.texts import Text

NOTICES: dict[str, Text] = {
    "medical_notice": Text(
        "本页是研究演示，不是医生：不作诊断，不开处方，不给用药剂量。内容由 AI 生成，可能有误。请勿输入姓名、电话、证件号等个人信息。"
        "不适请到正规医院就诊，紧急情况请拨打 120。",
        "This is a research demo, not a doctor: no diagnosis, no prescription, no doses. Content is AI-generated and may "
        "be wrong. Do not enter names, phone or ID numbers. See a doctor when unwell; in an emergency in mainland China "
        "call 120.",
    ),
    "medical_notice_short": Text(
        "研究演示，不是医生，不开处方。内容由 AI 生成，可能有误。请勿填写个人信息。紧急情况拨打 120。",
        "A research demo, not a doctor; no prescriptions. AI-generated, may be wrong. No personal data. Emergency: 120.",
    ),
    "ai_label": Text("内容由 AI 生成，仅供参考", "AI-generated content, for reference only"),
    "ai_watermark": Text(
        "（以上内容由 AI 生成，仅供参考，不能代替医生）",
        "(The text above is AI-generated, for reference only, and no substitute for a doctor.)",
    ),
    "emergency_medical": Text(
        "您描述的情况可能有生命危险。请立即拨打 120 或前往最近的急诊，不要等待，也不要自己开车；身边有人时请他陪着您。"
        "AI 的回复不能代替急救。",
        "What you describe may be life-threatening. Call 120 or go to the nearest emergency department now; do not wait "
        "and do not drive yourself; ask someone to stay with you. An AI reply is no substitute for emergency care.",
    ),
    "emergency_crisis": Text(
        "听起来您正在经历非常艰难的时刻，您值得得到帮助。请现在就告诉一位您信任的人，不要独处；可拨打心理援助热线 12356"
        "（每天至少 18 小时）。如果已经受伤、服药或有马上的危险，请立即拨打 120 或 110。",
        "You seem to be going through a very hard time, and you deserve help. Tell someone you trust now and do not stay "
        "alone; you can call the psychological support line 12356 (at least 18 hours a day). If you are hurt, have taken "
        "something or are in immediate danger, call 120 or 110 at once.",
    ),
    "emergency_other_person": Text(
        "您提到的人可能有危险。请不要让他独处，收好药物和利器，认真听他说，并陪他求助：心理援助热线 12356（每天至少 18 小时）。"
        "如果已经受伤、服药或有马上的危险，请立即拨打 120 或 110。",
        "The person you speak of may be in danger. Do not leave them alone, put medicines and sharp things away, listen, "
        "and help them get help: psychological support line 12356 (at least 18 hours a day). If they are hurt, have taken "
        "something or are in immediate danger, call 120 or 110 at once.",
    ),
    "licence_notice": Text(
        "本项目代码：Apache-2.0。BianQue-1.0、BianQue-2.0、SoulChat 的模型卡标注 apache-2.0；BianQue-2.0 与 SoulChat 基于 "
        "ChatGLM-6B，还须遵守其模型许可。上游说明写明 2.0 仅限非商业研究使用。",
        "Code of this project: Apache-2.0. The model cards of BianQue-1.0, BianQue-2.0 and SoulChat say apache-2.0; "
        "BianQue-2.0 and SoulChat are built on ChatGLM-6B, whose model licence applies too. The upstream text limits 2.0 "
        "to non-commercial research.",
    ),
    "greeting_bianque": Text(
        "我是利用人工智能技术，结合大数据训练得到的智能医疗问答模型扁鹊，你可以向我提问。",
        "I am BianQue, a medical question-answering model trained on large data with artificial intelligence. You may "
        "ask me questions; I speak Chinese.",
    ),
    "greeting_soulchat": Text(
        "你好！我是你的个人专属数字辅导员甜心老师，欢迎找我倾诉、谈心，期待帮助到你！",
        "Hello! I am your personal digital counsellor Tianxin. You are welcome to confide in me; I hope to help. "
        "I speak Chinese.",
    ),
}
