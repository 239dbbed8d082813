"""The backend for a vision-language model of transformers that runs on this machine."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jinja2
import torch
import transformers
from PIL import Image

from stages.core import cli
from stages.core.device import choose_device
from stages.settings.explain import ExplainSettings
from stages.text import pretrained
from stages.text.describers import Setup
from stages.text.describers.asking import (
    ModelDescriber,
    Question,
    Unanswered,
    spent_max_tokens,
)
from stages.text.describers.prompts import load_prompt


def _unsupported_architecture(model: str, found: str, expected: str) -> cli.BadInput:
    return cli.BadInput(
        model,
        "architecture",
        found=found,
        expected=f"{expected} (image-text-to-text, decoder only)",
        mend="choose a vision-language model such as Qwen2.5-VL or SmolVLM",
    )


def _load_model(settings: ExplainSettings, load_options: dict[str, Any]) -> tuple[Any, Any]:
    """Load the processor and the model, the model on the CPU."""
    load_options = load_options | {"trust_remote_code": settings.trust_remote_code}
    with pretrained.report_load_errors(settings.model, "explain"):
        config = transformers.AutoConfig.from_pretrained(settings.model, **load_options)
        known = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not known and "AutoModelForImageTextToText" not in getattr(config, "auto_map", {}):
            raise _unsupported_architecture(
                settings.model, config.model_type, "a model that answers questions about images"
            )
        processor = transformers.AutoProcessor.from_pretrained(settings.model, **load_options)
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            settings.model,
            config=config,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            output_loading_info=True,
            **load_options,
        )
    # The library initialises missing weights at random.
    if missing := sorted(report["missing_keys"]):
        raise cli.BadInput(
            settings.model,
            "weights",
            found=f"{len(missing)} of the model's tensors are missing, such as {missing[0]}",
            expected="all tensors",
            mend="download the model again, with all of its safetensors files",
        )
    return processor, model.eval()


def _make_conversation(text: str, pictures: int = 1) -> list[dict[str, Any]]:
    content = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def _check_image_input(processor: Any, model: str) -> None:
    """Raise BadInput if the picture of a question would not reach the model."""
    if getattr(processor, "chat_template", None) is None:
        if not getattr(processor, "image_token", None):
            raise cli.BadInput(
                model,
                "chat template",
                found="neither a chat template nor an image token",
                expected="one of the two, to put an image into a question",
                mend="choose a model whose folder has chat_template.jinja",
            )
        cli.log.info("%s has no chat template: a question is the image, then the text", model)
        return
    try:
        prompts = [processor.apply_chat_template(_make_conversation("?", n)) for n in (0, 1)]
        fault = "a template that leaves out the image of a question"
    except (TypeError, jinja2.TemplateError) as error:
        prompts = ["", ""]
        fault = f"a template that cannot format an image and a text: {error}"
    # A template that prints the parts of a question unformatted writes no image token either.
    added = set(processor.tokenizer.added_tokens_decoder)
    ids = [processor.tokenizer(prompt)["input_ids"] for prompt in prompts]
    without, with_image = (sum(token in added for token in row) for row in ids)
    if with_image <= without:
        raise cli.BadInput(
            model,
            "chat template",
            found=fault,
            expected="a template that puts an image token into the text",
            mend="copy chat_template.jinja or processor_config.json from the model's publisher",
        )


def _make_seed(question: Question, seed: int, attempt: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{attempt}\0{question.text}\0".encode())
    digest.update(question.picture.tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def _make_gumbel_sampler(
    generators: Sequence[torch.Generator], temperature: float
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function that makes the argmax of (B, V) logits a sample of their softmax.

    The argmax of logits plus Gumbel noise is distributed as their softmax (Gumbel 1954); here the
    softmax is at `temperature`. Each row has its own generator, so that the answer to a question
    does not depend on its batch.
    """

    def add_gumbel_noise(_tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        exponential = torch.empty_like(logits)
        for row, generator in zip(exponential, generators, strict=True):
            row.exponential_(generator=generator)
        return logits / temperature - exponential.log()

    return add_gumbel_noise


class LocalModel:
    """An image-text-to-text model that answers a batch of questions at a time.

    A question is one user turn in the model's chat template: the picture, then the text. For a
    model without a template, such as PaliGemma, it is the image token and the text. The model's
    control tokens are removed from the text, so that a prompt or a quoted answer cannot contain
    one.

    At temperature 0 each token is the most likely one. Above, it is sampled from all tokens, with a
    generator per question; its seed depends on `settings.seed`, the attempt and the question, so
    that a rerun or another batch gives the same answer. Penalties, such as for repetition, come
    from the model's generation_config.json; its temperature, top-k and top-p are not used.

    Batches are padded on the left. Padding changes the numbers of a row only by rounding: in
    float32 this usually changes no answer, in the 16-bit types it can decide a near tie.

    Parameters
    ----------
    settings
        `model` is a folder, or a hub id with a commit as `revision`.
    device
        The device to compute on; the complete model must fit into its memory.

    Attributes
    ----------
    name, revision
        `settings.model`, and its commit, or `sha256:` and the hash of the files in the folder.

    Raises
    ------
    BadInput
        The model does not exist, has no fixed revision, is of another kind, is incomplete, has
        weights that can run code, has a chat template that leaves out the picture, or is too large
        for the device.
    """

    def __init__(self, settings: ExplainSettings, device: torch.device) -> None:
        pinned = pretrained.pin_model(settings.model, settings.revision, "explain")
        self.name, self.revision = settings.model, pinned.revision
        if settings.trust_remote_code:
            cli.log.warning(
                "explain.trust_remote_code: code that comes with %s may run with your rights",
                settings.model,
            )
        self._settings = settings
        self._device = device
        self._processor, model = _load_model(settings, pinned.load_options)
        _check_image_input(self._processor, settings.model)
        tokenizer = self._processor.tokenizer
        # The model continues a row at its end, which must be at the same position in all rows.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._control_tokens = [
            str(token) for token in tokenizer.added_tokens_decoder.values() if token.special
        ]
        with self._report_out_of_memory(
            "explain.model", "a smaller model, or a 16-bit explain.dtype"
        ):
            self._model = model.to(device)
        self._generation_config = model.generation_config
        self._generation_config.update(
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
    def _report_out_of_memory(self, field: str, choice: str) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise cli.BadInput(
                self.name,
                field,
                found=f"{self._device} ran out of memory",
                expected="a model and a batch of questions that fit",
                mend=f"choose {choice}",
            ) from error

    def _format_prompt(self, text: str) -> str:
        for token in self._control_tokens:
            text = text.replace(token, "")
        if getattr(self._processor, "chat_template", None) is None:
            return f"{self._processor.image_token}{text}"
        return str(
            self._processor.apply_chat_template(
                _make_conversation(text), add_generation_prompt=True
            )
        )

    def _make_inputs(self, questions: Sequence[Question]) -> Any:
        prompts = [self._format_prompt(question.text) for question in questions]
        bos_token = self._processor.tokenizer.bos_token
        inputs = self._processor(
            images=[[Image.fromarray(question.picture)] for question in questions],
            text=prompts,
            padding=True,
            # Most templates already write this token; it must not occur twice.
            add_special_tokens=not (bos_token and prompts[0].startswith(bos_token)),
            return_tensors="pt",
        )
        # PaliGemma's processor adds labels for training.
        inputs.pop("labels", None)
        return inputs.to(self._device, dtype=self._model.dtype)

    @torch.inference_mode()
    def generate(self, questions: Sequence[Question], attempt: int) -> list[str | Unanswered]:
        """Answer each question, in their order; see `asking.VisionLanguageModel`.

        An answer without the model's end token was cut by `max_tokens`: it is `Unanswered`, and can
        be asked for again.

        Raises
        ------
        BadInput
            The batch does not fit into the device's memory.
        """
        settings = self._settings
        processors = []
        if settings.temperature > 0:
            generators = [
                torch.Generator(self._device).manual_seed(
                    _make_seed(question, settings.seed, attempt)
                )
                for question in questions
            ]
            processors = [_make_gumbel_sampler(generators, settings.temperature)]
        with self._report_out_of_memory(
            "explain.batch_size",
            f"a smaller explain.batch_size than {settings.batch_size}, or a smaller "
            "explain.view.side",
        ):
            inputs = self._make_inputs(questions)
            tokens = self._model.generate(
                **inputs,
                generation_config=self._generation_config,
                logits_processor=transformers.LogitsProcessorList(processors),
            )
        question_tokens = inputs["input_ids"]
        if not torch.equal(tokens[:, : question_tokens.shape[1]], question_tokens):
            found = f"{self._model.config.model_type}, whose output does not repeat the question"
            raise _unsupported_architecture(
                self.name, found, "a model whose output is the question and then the answer"
            )
        answers = tokens[:, question_tokens.shape[1] :]
        texts = self._processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        # A row that ends before the longest one has the end token, and then padding.
        end_tokens = self._generation_config.eos_token_id
        end_tokens = torch.tensor([] if end_tokens is None else end_tokens, device=answers.device)
        ended = torch.isin(answers, end_tokens).any(dim=1).tolist()
        return [
            text if end else spent_max_tokens(text, settings.max_tokens)
            for text, end in zip(texts, ended, strict=True)
        ]


def make(setup: Setup) -> ModelDescriber:
    """Return the describer that asks the local model with the questions of `setup.prompt`."""
    assert setup.prompt is not None
    torch.set_num_threads(setup.threads)
    settings = setup.settings
    prompt = load_prompt(setup.prompt)
    return ModelDescriber(
        LocalModel(settings, choose_device(setup.gpus)), prompt, settings.view, settings.attempts
    )
