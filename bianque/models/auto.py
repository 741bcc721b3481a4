"""Make transformers' Auto classes read published ChatGLM folders with this project's classes.

The published `config.json` and `tokenizer_config.json` point to remote code in `auto_map`. A locally registered class
takes precedence over it, without a question on the terminal and without `trust_remote_code`.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from bianque.tokenization.chatglm import ChatGLMTokenizer


def register() -> None:
    """Register model type `chatglm`; may be called any number of times.

    `AutoModel` gives the model with its head, as the published `auto_map` says.
    """
    AutoConfig.register(ChatGLMConfig.model_type, ChatGLMConfig, exist_ok=True)
    AutoTokenizer.register(ChatGLMConfig, tokenizer_class=ChatGLMTokenizer, exist_ok=True)
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
        auto_class.register(ChatGLMConfig, ChatGLMForConditionalGeneration, exist_ok=True)
