"""Signs of an emergency in what a patient says, looked for before any model answers.

A bare topic word is no sign: 癫痫 is most often a chronic illness, 自杀 often a topic. A rule therefore asks for the
wording of something that happens now, and a hit is dropped when its clause denies it (没有抽搐) or puts it into the
past (三年前昏迷过), or when the message asks about it in general (怎么预防煤气中毒) or tells of it afterwards (发作时
口吐白沫，怎么治). A crisis of somebody else has a notice of its own.

What it does not cover: an answer that is a sign only together with the question before it (有), typing errors inside a
key word, and languages other than Chinese. It is a net with holes and stands beside, never instead of, the page's
notice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from bianque.consultation.messages import Message, Role


class Emergency(StrEnum):
    """What kind of notice is due; the names end the keys of the translation table (`emergency_medical` …)."""

    MEDICAL = "medical"  # call 120
    CRISIS = "crisis"  # the visitor may harm themselves
    OTHER_PERSON = "other_person"  # somebody else may


def find_emergency(messages: Sequence[Message]) -> Emergency | None:
    """Return the emergency in force in a conversation.

    The newest message with a sign decides the kind. Once found, an emergency stays in force until the conversation is
    cleared: a patient who goes on chatting after 胸口压榨样疼痛 is still somebody who should call.
    """
    for message in reversed(messages):
        if message.role is Role.USER:
            found = find_in_text(message.text)
            if found:
                return found
    return None


def find_in_text(text: str) -> Emergency | None:
    """Return the emergency that one message of a patient tells of; a crisis goes before a medical one."""
    if _is_general(text):
        return None
    clauses = [clause for clause in _CLAUSE_END.split(text) if clause.strip()]
    if any(_tells_crisis(clause) for clause in clauses) or _matches(_CRISIS_ACROSS, text, clauses):
        return Emergency.OTHER_PERSON if _is_about_another(text) else Emergency.CRISIS
    if _is_told_afterwards(text):
        return None
    if any(_tells_now(clause, pattern) for clause in clauses for pattern in _MEDICAL):
        return Emergency.MEDICAL
    if any(_matches(pattern, text, clauses) for pattern in _MEDICAL_ACROSS):
        return Emergency.MEDICAL
    return None


_CLAUSE_END = re.compile(r"[，。！？；,.!?;…~～\s]+")

# Somebody asks about the thing, or tells of it as a topic.
_GENERAL = re.compile(
    r"预防|避免|有(哪些|什么)(症状|表现|前兆)|(症状|表现|前兆|原因)(是什么|有哪些)|怎么保养|急救课|课上|新闻|报道|电视|电影|小说"
    r"|会不会遗传|会遗传|遗传吗|自杀率|为什么(会有?人|有人|那么多)|科普|论文|公司组织|后遗症|怎么康复|怎么护理|可怕吗|有什么影响|有影响吗"
)

_NUMBER = r"[\d一二三四五六七八九十两几半多]+"
_PAST = re.compile(
    rf"{_NUMBER}(?:多|来)?(?:年|个月|个多月)(?:多)?(?:前|了|以前|之前)|去年|前年|大前年|上个月|以前|从前|曾经|小时候|年轻(?:时|的时候)"
    rf"|(?<!历)史(?:$|[，。、的])|病史|{_NUMBER}年的?病|(?:大学|高中|初中|上学|那)(?:时|的时候|那会儿)|出院后|已经治好|后来"
)
_NEGATION = re.compile(
    r"(?:没有?|无|未|并非|不是|否认|从没|从来没|不会|不曾|没什么|怕|担心|害怕|万一|会不会|如果)[^，。]{0,10}$|(?<![止得])不$"
)
_MILD = re.compile(
    r"有点|有些|偶尔|轻微|一点点?|几秒|休息一下|上楼|爬楼|爬山|跑步|运动|压力|心里|工作|学习|作业|唱歌|喊多|话说多"
)
_ACUTE = re.compile(r"突然|忽然|一下子|刚刚?|正在|现在|立刻|马上|越来越|不停|一直")


# A known illness, or an attack that is over, told to a doctor afterwards: seizures of epilepsy are the commonest case.
_AFTERWARDS = re.compile(
    r"(?:发作|复发|病发|犯病|发病)(?:的时候|时|起来|之后|以后)|时不时|经常|总是|总觉|老是|有时|每(?:一)?个?(?:月|天|次|周|年|晚)|频率|频繁|次数"
    r"|医生(?:说|诊断|检查|建议|告诉)|确诊|诊断(?:为|出)|查出|患(?:有|了|上|者|这|癫|高|糖|病)|得了|哪家|偏方|根治|治好|治愈|怎[么样]+(?:治|才能)|治疗"
    r"|多少钱|费用|仔细检查|住院|醒(?:了)?过来|(?:哪个|什么)科|好几年|好多年|从小|反复|该病|这种病"
)
_NOW = re.compile(r"刚才|刚刚|正在|此刻|这会儿|还没(?:停|醒)|分钟了|快不行|立刻|马上就")


def _is_told_afterwards(text: str) -> bool:
    return bool(_AFTERWARDS.search(text)) and not _NOW.search(text)


def _is_general(text: str) -> bool:
    return bool(_GENERAL.search(text)) and not re.search(r"刚才|刚刚|正在|怎么办|快不行|今晚|我想死|不想活", text)


def _tells_now(clause: str, pattern: re.Pattern[str]) -> bool:
    """Return whether `clause` says that the sign is there, neither denied nor past."""
    for match in pattern.finditer(clause):
        is_past = clause[match.end() : match.end() + 1] == "过" or bool(_PAST.search(clause))
        if is_past and not re.search(r"突然|刚刚|刚才|正在|又", clause):
            continue
        if _NEGATION.search(clause[: match.start()]):
            continue
        return True
    return False


def _matches(pattern: tuple[re.Pattern[str], re.Pattern[str]], text: str, clauses: Sequence[str]) -> bool:
    """Return whether both halves of a sign are told, in whatever clauses, and the first is not called mild."""
    first, second = pattern
    return any(
        _tells_now(clause, first) and (not _MILD.search(clause) or bool(_ACUTE.search(clause))) for clause in clauses
    ) and any(_tells_now(clause, second) for clause in clauses)


def _compile(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


# ---------------------------------------------------------------------------------------------------------- crisis

_WISH = r"(?:想|要|打算|准备|决定|计划)(?:着|过|要|去|办法)?"
_CRISIS = _compile(
    r"不想活|活不下去|不想再?(?:活|坚持|撑|继续活)|活够了|活腻|没法活|(?<!生)不如死|(?:死|走)了(?:算了|干净|一了百了)|一了百了",
    r"(?<![得快])(?:想|打算|准备|决定)(?:着|要|去|办法)?(?:去)?死(?!你|我|他|她|机|板)|(?<!不)(?:安静|平静|悄悄|干净)地?死",
    rf"{_WISH}(?:去)?(?:自杀|轻生|寻死|自尽|了断|上吊|跳楼|跳河|跳桥|割腕|自残)(?!你|我|他|她|机|板)",
    r"自我了断|寻短见|(?:结束|了结)(?:掉)?(?:自己|我的?|生命|这?一切|这(?:痛苦的)?一生|痛苦的生活)",
    r"(?:烧炭|割腕|上吊|跳楼|跳河|跳桥|吃安眠药|吃药)(?:会|是不是|真的会)?(?:很)?(?:痛苦|疼|痛|难受)吗|(?:药|安眠药).{0,3}攒|攒.{0,4}(?:药|安眠药)",
    r"我.{0,6}(?:桥|天台|楼顶|窗台|江|河|海)(?:上|边).{0,8}跳|跳了就|(?:要|说要|想)(?:喝|吞|吃).{0,2}(?:农药|百草枯|老鼠药)",
    r"死法|怎[么样]死|(?:吃|喝|吞|服)多少.{0,8}(?:会|能|才).{0,2}死|怎[么样](?:才能)?(?:没有痛苦|不痛苦|安静)地?(?:死|离开|走)",
    r"(?:写|留)(?:好)?(?:了)?.{0,3}遗书|后事都?(?:安排|交代)",
    r"(?:从|站在|爬上|坐在).{0,8}(?:楼|天台|桥|窗|阳台).{0,8}跳|跳下去|要跳楼|正要跳",
    r"割腕|割(?:了)?(?:自己|手腕|脉|伤自己)|(?:刀|刀片|剪刀|圆规).{0,4}(?:划|割|扎).{0,3}(?:自己|手|胳膊|大腿)|(?:划|割|掐|烫)(?:伤|破)?自己|在割自己|伤害自己|自残|手(?:腕|臂)上?.{0,6}(?:口子|划痕|刀痕|伤口)|只有(?:疼|痛|流血).{0,8}活着",
    r"(?:不|别)(?:想|要|愿|用)?再?醒(?:过)?来|永远(?:睡|不醒|闭上眼)|长睡不醒|一睡不醒|(?:睡|闭眼).{0,6}(?:不用|不必|不要|不会)再?醒|为什么还要(?:醒|活)",
    r"我(?:要是|如果)?(?:死|不在|消失)了?.{0,6}(?:轻松|解脱|更好|会好|开心)|没有我.{0,6}(?:更好|会好|轻松)|少了我|死了(?:也|都)?没(?:有)?人(?:知道|在乎|发现|管)|下辈子(?:再见|见|再)|来生再",
    rf"{_WISH}(?:彻底|就此|从此|永远)?(?:消失|解脱|离开(?:这个)?(?:世界|人世|人间))",
    r"(?:只|好|真|就)?想(?:快点|早点|赶紧|尽快|就这[么样])结束(?!治疗|疗程|工作|考试)|(?:东西|后事).{0,4}(?:分|送|交代|处理)(?:完|好)",
    r"撑不下去|坚持不下去了|我(?:就)?是.{0,6}(?:累赘|拖累|负担)",
    r"活着(?:就是|是|也是|真)?.{0,5}(?:多余|没意思|没意义|没有意义|没什么意思|受罪|累赘|没用|折磨)|没有活(?:着|下去)的(?:意义|必要|理由)",
    r"(?:吞|吃|喝)(?:下|光|完)?了?.{0,3}(?:一|整|半|大半)(?:整)?(?:瓶|把|盒).{0,3}安眠药|安眠药.{0,6}(?:都|全).{0,2}(?:吃|吞)|把药都?(?:全)?(?:都)?(?:吃|吞)了?",
)
# A plan may be told in two clauses: what was taken, and what for.
_CRISIS_ACROSS = (
    re.compile(r"(?:吞|吃|喝)(?:下|光|完)?了?.{0,6}(?:药|农药|百草枯)"),
    re.compile(r"不想活|想死|自杀|轻生|解脱|醒不?过?来"),
)
_WISH_DENIED = re.compile(
    r"(?:不|没有?|从没|从来没有?|不会|并不|没想|不敢|不可能)(?:是|有|想|要|再|真的?)*(?:过)?(?:想过?)?(?:去)?(?:死|自杀|轻生|自残|伤害自己|寻死|跳楼|割腕)"
)


def _tells_crisis(clause: str) -> bool:
    is_past = bool(_PAST.search(clause)) and not re.search(r"又|还是?想|仍|现在|最近|今", clause)
    if is_past or re.search(r"割腕过|割过腕|自杀过|想过(?:轻生|自杀|死)", clause):
        return False
    if _WISH_DENIED.search(clause) and not re.search(r"不想活|不想再", clause):
        return False
    return any(pattern.search(clause) for pattern in _CRISIS)


_ANOTHER = (
    r"朋友|闺蜜|女儿|儿子|孩子|室友|舍友|同学|同事|老公|老婆|丈夫|妻子|妈妈?|爸爸?|父亲|母亲|男友|女友|男朋友|女朋友"
    r"|哥哥?|姐姐?|弟弟?|妹妹?|邻居|学生|网友|爷爷|奶奶|外公|外婆|亲戚|他|她"
)
# Somebody else is the subject when they are named before any wish of the speaker's own: 室友说要跳楼, but not
# 我老公不理我，我不想活了.
_SOMEBODY_ELSE = re.compile(
    rf"(?:^|[，。！？；,\s])(?:我(?:的|家)?|有个|一个)?(?:{_ANOTHER})(?!不理|不要我|打我|骂我|走了|去世)"
)
_OWN_WISH = re.compile(r"我(?:也|就|真的?|现在|今晚|已经|好|很|都|只)?(?:不想|想死|想自杀|活|撑|要跳|割|吞|写好)")


def _is_about_another(text: str) -> bool:
    return bool(_SOMEBODY_ELSE.search(text)) and not _OWN_WISH.search(text)


# --------------------------------------------------------------------------------------------------------- medical

_SIDE = r"(?:半边|半个|半身|一侧|一边|单侧|左侧|右侧|左边|右边|左半边?|右半边?|左|右)"
_LIMB = r"(?:身子|身体|手脚|肢体|胳膊|手臂|手|脚|腿|脸)"
_MEDICAL = _compile(
    # chest
    r"(?:胸口?|心口|心前区|胸前区|前胸)(?:.{0,6})(?:压榨|大?石头压|像?被.{0,3}(?:攥|掐|揪|捏|勒)|压着|撕裂|刀割|刀绞|绞痛|剧痛|剧烈|(?:疼|痛)得(?:受不了|要命|厉害得?不行))|捂着胸口",
    r"心脏.{0,6}像?被.{0,3}(?:攥|掐|揪|捏|勒)|(?:剧烈|撕裂样?|压榨样?)的?胸(?:痛|疼)|心脏骤停|心脏?停(?:了|跳)|没有?心跳",
    # breath
    r"(?<!压力大得)喘不(?:上|过)来?气|喘不(?:上|过)来|(?:喘|吸|透)不(?:动|进|了|上)(?:来)?气|上不来气|上气不接下气|呼吸不(?:了|上来)|呼吸(?:极度|非常|很|特别)?困难|(?:不能|无法|没法)呼吸|快?(?:要)?窒息",
    r"(?:没有?|停止|停了)呼吸(?!困难|急促|道|不畅)|呼吸(?:停|没)了|憋(?:得)?.{0,3}(?:发)?(?:紫|青)|(?:嘴唇?|脸色?|口唇|指甲)[^不没]{0,3}(?:都|发|憋|变)?[^不没]?(?:紫|绀|青(?!春))|喘得.{0,2}说不出|(?:卡住|噎住|呛住)了?.{0,6}(?:紫|喘|呼吸|说不出|咳不出)",
    # stroke
    r"(?:嘴巴?|口角|嘴角|口眼|脸|面部).{0,3}(?:歪|斜)|(?:说话|讲话|吐字|言语|口齿).{0,4}(?:不清|大舌头|含糊|不利索)|话也?说不(?:清|利索|明白)|大舌头",
    rf"{_SIDE}(?:的)?{_LIMB}.{{0,6}}(?:动不了|动弹不|没力|没有力|无力|不能动|抬不起|不听使唤|瘫|没知觉)|拿不住筷子|突然.{{0,8}}(?:看不见|失明|偏瘫|瘫痪)",
    r"(?:一辈子|从来|从)没.{0,8}头(?:痛|疼)|头(?:痛|疼).{0,10}(?:从来没|没这么)|突然头(?:痛|疼).{0,6}(?:炸|裂|剧)|喷射[状性]?(?:的)?呕吐",
    # consciousness
    r"叫不(?:太|大|怎么)?醒|(?:叫|喊|推|摇|拍|弄)(?:也|都|不)?.{0,3}不(?:太)?醒|(?:叫|喊|推|人|倒下|地上).{0,4}(?:没有?反应|不应|没动静|不理)|没有?意识|失去(?:了)?(?:意识|知觉)|意识(?:不清|模糊|丧失)|神志不清|不省人事",
    r"昏迷|晕倒|昏倒|(?:晕|昏)(?:死|厥)?过去|昏厥|晕厥|说胡话|人(?:已经|都|有点)?(?:糊涂|迷糊|迷迷糊糊)|已经糊涂了|迷迷糊糊叫不",
    # seizure
    r"(?<!眼皮)(?<!肌肉)(?<!眼角)(?<!嘴角)(?<!眼睛)(?<!小腿)(?:抽搐|惊厥|抽风)(?!药)|白沫|(?:两|双)?眼睛?(?:往)?上?翻(?:白|$)|往上翻|翻白眼|牙关紧|(?:烧到|烧得|一直在|正在|浑身|全身|四肢).{0,2}抽|(?:癫痫|羊癫疯|羊角风)(?:又|正在|突然|大)?发作",
    # bleeding
    r"(?:大口|大量|一直|不停)(?:地)?(?:吐|呕|咯|咳)(?:出)?(?:鲜)?血|(?:吐|呕|咯|咳)了?(?:好多|很多|大量|一大[滩口碗盆]?|一碗|一盆|小?半[盆碗]).{0,3}血|(?:吐|呕|咳)(?:出)?来?.{0,4}(?:滩|碗|盆)血|吐血|呕血",
    r"血(?:怎么都|一直|都)?(?:止不住|不止|停不下来)|止不住血|血.{0,4}(?:往外)?(?:喷|涌|飙|哗哗|流个不停)|(?:按|压|捂)不住|一小时(?:就)?湿透|大出血|流了(?:好多|很多|一地|大量).{0,1}血|(?:割|切|砸|轧|锯|绞)断了?|便了?(?:好多|大量|很多)(?:鲜)?血",
    # allergy
    r"(?:喉咙?|嗓子|咽喉|舌头).{0,3}(?:肿|发紧|水肿).{0,6}(?:说不出|喘|呼吸|咽不下|憋)|舌头.{0,2}肿|过敏性休克",
    # poisoning
    r"百草枯|敌敌畏|(?:喝|误喝|误服|误食|吞|吃)(?:下|进)?(?:了)?.{0,6}(?:农药|老鼠药|鼠药|洁厕|消毒液|84|强酸|强碱|汽油|煤油|灭蚊|杀虫剂|樟脑丸|洗衣液|洗衣凝珠|洗洁精|漂白|油漆|机油|打火机油|干燥剂|纽扣电池|电池|磁铁|磁力珠|水银)",
    r"(?:煤气|一氧化碳|天然气|沼气|有机磷|毒蘑菇|亚硝酸盐)中毒|(?:吃|服|吞)(?:下)?了(?:一整|整整?|一|半|大半)瓶.{0,4}药?",
    r"把.{0,3}(?:农药|老鼠药|洁厕|消毒液|樟脑丸|洗衣液|洗洁精|酒精|汽油|药片?|降压药).{0,8}(?:吃|喝|吞)|被.{0,4}(?:毒蛇|眼镜蛇|五步蛇|蛇)(?:给)?咬",
    # infants, pregnancy
    r"胎动.{0,8}(?:没有?了|消失|都没有|感觉不到|摸不到)|羊水(?:突然)?(?:破|流|早破)|脐带.{0,6}(?:掉|脱|出来)|(?:怀孕|孕).{0,14}(?:大出血|流血|出血|剧痛|抽搐)",
    # trauma
    r"骨头.{0,4}(?:露|戳|穿)|(?:刀|钢筋|玻璃|钉子).{0,6}(?:扎|捅|插|刺)(?:进|入|穿|到)|触电|溺水|(?:被|让).{0,4}(?:车|卡车|汽车|电动车)(?:给)?(?:撞|轧|压)|(?:大面积|全身|脸上).{0,3}(?:烧伤|烫伤)",
    # abdomen, heat, sugar
    r"(?:肚子|腹部?|小腹|胃).{0,8}(?:刀割|刀绞|剧痛|(?:疼|痛)得.{0,4}打滚)|肚皮?.{0,4}(?:硬邦邦|像.{0,2}板)|硬得像.{0,2}板|中暑.{0,14}(?:昏|糊涂|抽|叫不)|体温.{0,3}4[12]",
)

# Signs whose two halves may stand in different clauses.
_CHEST_PAIN = r"(?:胸口?|心口|心前区|心脏|前胸)(?:前区)?.{0,4}(?:疼|痛|闷)"
_MEDICAL_ACROSS = tuple(
    (re.compile(first), re.compile(second))
    for first, second in (
        (
            _CHEST_PAIN,
            r"左(?:胳膊|臂|肩膀?|手臂?).{0,6}(?:疼|痛|麻|酸)|冷汗|大汗|浑身(?:是)?汗|汗.{0,6}湿透|左肩|喘不(?:上|过)|脸色(?:发|苍|惨)?白|要晕|快晕|濒死|嘴唇发紫|(?:传|放射|窜)到",
        ),
        (r"哮喘.{0,6}(?:发作|犯)", r"说不出话|没用|不管用|不见好|喘不"),
        (
            r"(?:吃|喝|打|输|蛰|咬|用)(?:了|完|过)|被.{0,4}(?:蜂|蜇|蛰|咬)",
            r"(?:喉咙?|嗓子|咽喉).{0,3}(?:发紧|肿)(?!痛)|(?:嘴唇|舌头|脸).{0,3}肿起?来?.{0,12}(?:胸闷|喘|晕)|(?:胸闷|气短).{0,4}(?:要|快)?晕",
        ),
        (
            r"满月|新生儿|刚出生|出生.{0,4}天|未满.{0,2}月|(?:[一两二三123]|半)个?多?月(?:大)?的?(?:宝宝|宝贝|婴儿|孩子|娃)",
            r"发?高?烧|发热|不(?:肯|想|愿)?吃奶|吃奶差|叫不|体温.{0,2}(?:3[89]|4)",
        ),
        (
            r"高烧|发烧|发热",
            r"昏睡|嗜睡|叫.{0,3}没反应|一直睡|精神(?:很|特别|非常|极)?差|脖子.{0,2}(?:硬|僵)|颈.{0,2}硬",
        ),
        (r"(?:怀孕|孕|妊娠).{0,12}", r"大出血|流血|出血|剧痛|见红|见?(?:好多|很多|大量)血"),
        (r"(?:黑便|柏油便|便血|拉血|血便)", r"眼前发黑|冷汗|要晕|头晕心慌|站不(?:住|起来)"),
        (
            r"(?:摔|坠|撞|砸|磕).{0,10}",
            r"骨头.{0,4}露|昏昏沉沉|昏昏欲睡|越来越困|喷射|吐了|恶心呕吐|不能动|动不了|记不起",
        ),
        (r"胰岛素|降糖药|糖尿病|低血糖", r"叫不醒|昏|没反应|意识|叫.{0,3}不(?:理|应)"),
        (r"右下腹.{0,6}(?:剧|很|越来越|特别)?.{0,2}(?:疼|痛)", r"高烧|发烧|直不起腰|越来越(?:厉害|疼|痛)"),
        (r"蘑菇|河豚|野果", r"胡话|吐|泻|昏|幻觉"),
        (r"头(?:痛|疼)", r"脖子.{0,3}(?:硬|僵)|喷射"),
        (r"头.{0,6}(?:雷劈|炸开|炸裂)|突然.{0,4}头.{0,3}(?:剧|爆)", r"吐|剧痛|突然"),
        (r"烧炭|炭火|煤炉|燃气|热水器", r"头晕|恶心|站不|晕|迷糊|没力气"),
        (
            r"(?:过敏|风团|疹|头孢|青霉素|海鲜|虾|花生|蜂).{0,12}",
            r"(?:嘴唇|舌头|眼皮|脸).{0,3}肿.{0,10}|喘不|憋得慌|胸闷",
        ),
    )
)
