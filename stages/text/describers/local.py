"""A vision-language model that runs here, through transformers."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jinja2
import torch
import transformers
from PIL import Image

from stages.core import cli
from stages.core.device import choose
from stages.settings.explain import ExplainSettings
from stages.text import pretrained
from stages.text.describers import Setup
from stages.text.describers.asking import Asked, Question, Unanswered
from stages.text.describers.prompts import load_prompt


def _unfit(model: str, found: str, expected: str) -> cli.BadInput:
    return cli.BadInput(
        model,
        "architecture",
        found=found,
        expected=f"{expected} (image-text-to-text, decoder only)",
        mend="choose a vision-language model, such as Qwen2.5-VL or SmolVLM",
    )


def _load(settings: ExplainSettings, origin: dict[str, Any]) -> tuple[Any, Any]:
    """Load processor and model, the latter on the CPU."""
    origin = origin | {"trust_remote_code": settings.trust_remote_code}
    with pretrained.loading(settings.model, "explain"):
        config = transformers.AutoConfig.from_pretrained(settings.model, **origin)
        known = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not known and "AutoModelForImageTextToText" not in getattr(config, "auto_map", {}):
            raise _unfit(settings.model, config.model_type, "one that answers about images")
        processor = transformers.AutoProcessor.from_pretrained(settings.model, **origin)
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            settings.model,
            config=config,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            output_loading_info=True,
            **origin,
        )
    # The library draws what it does not find.
    if missing := sorted(report["missing_keys"]):
        raise cli.BadInput(
            settings.model,
            "weights",
            found=f"{len(missing)} of the model's tensors are absent, such as {missing[0]}",
            expected="all of them",
            mend="download the model again, with all of its safetensors files",
        )
    return processor, model.eval()


def _conversation(text: str, pictures: int = 1) -> list[dict[str, Any]]:
    content = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def _check_form(processor: Any, model: str) -> None:
    """Stop where a question's picture would not reach the model."""
    if getattr(processor, "chat_template", None) is None:
        if not getattr(processor, "image_token", None):
            raise cli.BadInput(
                model,
                "chat template",
                found="none, and no token for an image",
                expected="one of them, to put an image into a question",
                mend="choose a model whose folder has chat_template.jinja",
            )
        cli.log.info("%s has no chat template: a question is its image, then the text", model)
        return
    try:
        prompts = [processor.apply_chat_template(_conversation("?", n)) for n in (0, 1)]
        wrong = "it leaves out the image of a question"
    except (TypeError, jinja2.TemplateError) as error:
        prompts = ["", ""]
        wrong = f"it cannot write a question of an image and a text: {error}"
    # A template that prints the parts of a question as they are has no token of an image, either.
    added = set(processor.tokenizer.added_tokens_decoder)
    ids = [processor.tokenizer(prompt)["input_ids"] for prompt in prompts]
    without, with_image = (sum(token in added for token in row) for row in ids)
    if with_image <= without:
        raise cli.BadInput(
            model,
            "chat template",
            found=wrong,
            expected="a template that puts an image's token into the text",
            mend="take chat_template.jinja or processor_config.json from the model's publisher",
        )


def _seed(question: Question, seed: int, attempt: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{attempt}\0{question.text}\0".encode())
    digest.update(question.picture.tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def _drawing(
    generators: Sequence[torch.Generator], temperature: float
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Make the largest of (B, V) logits a draw from their softmax at `temperature`.

    The largest of logits plus Gumbel noise is distributed as their softmax (Gumbel 1954). Row by
    row from a generator of its own, so that a question's answer does not depend on its batch.
    """

    def draw(_tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        waiting = torch.empty_like(logits)
        for row, generator in zip(waiting, generators, strict=True):
            row.exponential_(generator=generator)
        return logits / temperature - waiting.log()

    return draw


class Local:
    """Answers of an image-text-to-text model, a batch of questions at a time.

    A question is one turn of the user, the picture and then the text, in the model's chat template;
    for a model without one, such as PaliGemma, it is the token of an image and the text. The
    model's own control tokens are taken out of the text, so that no prompt and no quoted answer can
    pose as one. At temperature 0 a token is the likeliest; above, it is drawn from all tokens, from
    a generator per question, seeded by `settings.seed`, the attempt and the question, so that
    neither a rerun nor another batch draws differently. Penalties, such as for repetition, are
    those of the model's generation_config.json; its temperature, top-k and top-p are not used.

    Batches are padded on the left. A padded row's numbers are the same but for rounding: in float32
    that changes no answer as a rule, in the 16-bit types it can turn a near tie.

    Parameters
    ----------
    settings
        `model` is a folder, of which `revision` is then a hash, or a hub id with a commit.
    device
        The whole model has to fit on it.

    Attributes
    ----------
    name, revision
        `settings.model`; its commit, or `sha256:` and the hash of the files in the folder.

    Raises
    ------
    BadInput
        No such model, without a pinned revision, of another kind, incomplete, with weights that can
        run code, with a chat template that leaves out the picture, or too large for the device.
    """

    def __init__(self, settings: ExplainSettings, device: torch.device) -> None:
        pinned = pretrained.pin(settings.model, settings.revision, "explain")
        self.name, self.revision = settings.model, pinned.revision
        if settings.trust_remote_code:
            cli.log.warning(
                "explain.trust_remote_code: code that comes with %s may run with your rights",
                settings.model,
            )
        self._settings = settings
        self._device = device
        self._processor, model = _load(settings, pinned.origin)
        _check_form(self._processor, settings.model)
        tokenizer = self._processor.tokenizer
        # A row goes on at its end, which all rows of a batch must have in the same place.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._controls = [
            str(token) for token in tokenizer.added_tokens_decoder.values() if token.special
        ]
        with self._memory("explain.model", "a smaller model, or a 16-bit explain.dtype"):
            self._model = model.to(device)
        self._generation = model.generation_config
        self._generation.update(
            max_new_tokens=settings.max_tokens,
            max_length=None,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_k=None,
            top_p=None,
            pad_token_id=tokenizer.pad_token_id,
        )

    @contextmanager
    def _memory(self, field: str, instead: str) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise cli.BadInput(
                self.name,
                field,
                found=f"{self._device} ran out of memory",
                expected="a model and a batch of questions that fit",
                mend=f"choose {instead}",
            ) from error

    def _prompt(self, text: str) -> str:
        for token in self._controls:
            text = text.replace(token, "")
        if getattr(self._processor, "chat_template", None) is None:
            return f"{self._processor.image_token}{text}"
        return str(
            self._processor.apply_chat_template(_conversation(text), add_generation_prompt=True)
        )

    def _inputs(self, questions: Sequence[Question]) -> Any:
        prompts = [self._prompt(question.text) for question in questions]
        begin = self._processor.tokenizer.bos_token
        inputs = self._processor(
            images=[[Image.fromarray(question.picture)] for question in questions],
            text=prompts,
            padding=True,
            # Most templates write the token of a beginning themselves; two are one too many.
            add_special_tokens=not (begin and prompts[0].startswith(begin)),
            return_tensors="pt",
        )
        # PaliGemma's processor makes some, for training.
        inputs.pop("labels", None)
        return inputs.to(self._device, dtype=self._model.dtype)

    @torch.inference_mode()
    def generate(self, questions: Sequence[Question], attempt: int) -> list[str | Unanswered]:
        """Answer each question, in their order; see `stages.text.describers.asking.Model`.

        Raises
        ------
        BadInput
            The batch does not fit into the device's memory.
        """
        settings = self._settings
        processors = []
        if settings.temperature > 0:
            generators = [
                torch.Generator(self._device).manual_seed(_seed(question, settings.seed, attempt))
                for question in questions
            ]
            processors = [_drawing(generators, settings.temperature)]
        with self._memory(
            "explain.batch_size",
            f"a smaller explain.batch_size than {settings.batch_size}, or a smaller "
            "explain.view.side",
        ):
            inputs = self._inputs(questions)
            tokens = self._model.generate(
                **inputs,
                generation_config=self._generation,
                logits_processor=transformers.LogitsProcessorList(processors),
            )
        asked = inputs["input_ids"]
        if not torch.equal(tokens[:, : asked.shape[1]], asked):
            found = (
                f"{self._model.config.model_type}, whose answer does not go on from the question"
            )
            raise _unfit(self.name, found, "one whose answer goes on from it")
        return list(
            self._processor.tokenizer.batch_decode(
                tokens[:, asked.shape[1] :], skip_special_tokens=True
            )
        )


def make(setup: Setup) -> Asked:
    """Load the model, to be asked as `setup.prompt` says."""
    assert setup.prompt is not None
    torch.set_num_threads(setup.threads)
    settings = setup.settings
    prompt = load_prompt(setup.prompt)
    return Asked(Local(settings, choose(setup.gpus)), prompt, settings.view, settings.attempts)
