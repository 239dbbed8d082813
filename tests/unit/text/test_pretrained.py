"""Pretrained models are pinned to a revision, and a model that cannot be used is reported."""

import shutil

import pytest

from stages.core.cli import BadInput
from stages.text.pretrained import pin_model, report_load_errors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of a model, as far as `pin_model` reads them."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def message(model, revision="", section="explain"):
    with pytest.raises(BadInput) as error:
        pin_model(str(model), revision, section)
    return str(error.value)


# A folder


def test_the_revision_of_a_folder_is_the_hash_of_its_files(folder):
    # In a shell: for f in *; do printf '%s\0%s\0' $f $(sha256sum $f | cut -c-64); done, and
    # sha256sum of all that.
    expected = "sha256:d9b057277b6324abd60d967c3f9ce31af1055f1d7251cfb60a3f737f444cc172"
    assert pin_model(str(folder), "", "explain") == (expected, {"local_files_only": True})


def test_a_copy_elsewhere_has_the_same_revision(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert pin_model(str(copy), "", "explain") == pin_model(str(folder), "", "explain")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_byte_changes_the_revision(folder, name):
    before = pin_model(str(folder), "", "explain").revision
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert pin_model(str(folder), "", "explain").revision != before


def test_a_renamed_file_changes_the_revision(folder):
    before = pin_model(str(folder), "", "explain").revision
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert pin_model(str(folder), "", "explain").revision != before


def test_hidden_files_and_subfolders_do_not_change_the_revision(folder):
    before = pin_model(str(folder), "", "explain").revision
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "config.json.metadata").write_text("1732470000")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert pin_model(str(folder), "", "explain").revision == before


def test_a_folder_with_a_commit_raises(folder):
    assert message(folder, COMMIT) == (
        f"{folder}: explain.revision\n"
        f"  found:    {COMMIT}\n"
        "  expected: an empty value: the revision of a local folder is the hash of its files\n"
        "  to mend:  leave explain.revision empty, or set explain.model to a hub id"
    )


def test_a_folder_without_a_config_raises(folder):
    (folder / "config.json").unlink()
    assert message(folder, section="embed") == (
        f"{folder}: config.json\n"
        "  found:    no such file\n"
        "  expected: a folder written by save_pretrained, or a snapshot of a hub model\n"
        "  to mend:  set embed.model to the folder that holds config.json"
    )


@pytest.mark.parametrize(
    ("files", "found"),
    [([], "none"), (["pytorch_model.bin", "a.ckpt"], "only a.ckpt, pytorch_model.bin")],
)
def test_weights_other_than_safetensors_raise(folder, files, found):
    (folder / "model.safetensors").unlink()
    for name in files:
        (folder / name).write_bytes(b"\x80")
    assert message(folder) == (
        f"{folder}: weights\n"
        f"  found:    {found}\n"
        "  expected: *.safetensors; other weight files can run code when they are opened\n"
        "  to mend:  use the model's safetensors files, or, if you trust the source, convert it: "
        "load it with from_pretrained and write it with save_pretrained"
    )


# A hub's model


def test_a_commit_pins_a_hub_model():
    assert pin_model("lab/model-2.5_B", COMMIT, "explain") == (COMMIT, {"revision": COMMIT})


@pytest.mark.parametrize(
    ("revision", "found"),
    [
        ("", "no revision, and no folder of this name"),
        ("main", "'main'"),
        (COMMIT[:7], f"'{COMMIT[:7]}'"),
        (COMMIT + "\n", repr(COMMIT + "\n")),
    ],
)
def test_a_hub_model_without_a_commit_raises(revision, found):
    assert message("lab/model", revision) == (
        "lab/model: explain.revision\n"
        f"  found:    {found}\n"
        "  expected: the full commit of the hub model, 40 hexadecimal digits: a branch or a tag "
        "can move, and the same config would then give another result\n"
        "  to mend:  copy the commit from the model's page (Files, History), or set explain.model "
        "to a folder"
    )


@pytest.mark.parametrize("model", ["/data/model", "./lab/model", "../model", "~/model", "a/b/c"])
def test_a_path_is_not_read_as_a_hub_id(model):
    assert message(model, COMMIT) == (
        f"{model}: explain.model\n"
        "  found:    no such folder\n"
        "  expected: a folder with a model, or a hub id (owner/name)\n"
        "  to mend:  correct the path; a relative path starts at the folder where snakemake runs"
    )


# Errors of the library


def loading_message(model, error):
    with pytest.raises(BadInput) as caught, report_load_errors(str(model), "embed"):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_an_unreachable_hub_is_reported():
    assert loading_message("lab/model", OSError("We couldn't\nconnect " + "x" * 500)).endswith(
        "  to mend:  check the id and the commit; without a network, set embed.model to a folder; "
        "for a model with restricted access, log in with `hf auth login`"
    )


def test_a_long_library_message_is_truncated():
    found = loading_message("lab/model", OSError("We couldn't\n connect " + "x" * 500))
    # 400 characters, 20 of which are the words.
    assert f"  found:    We couldn't connect {'x' * 380}\n" in found


def test_a_broken_file_is_reported(folder):
    found = loading_message(folder, ValueError("bad header"))
    assert found.startswith(
        f"{folder}: the model\n  found:    bad header\n  expected: a model that"
    )
    assert found.endswith(
        "  to mend:  copy the complete model folder again, or choose a model that this version of "
        "transformers supports"
    )


def test_a_missing_package_is_reported(folder):
    assert loading_message(folder, ImportError("Package `num2words` is required")).endswith(
        "  to mend:  install the named package into the pipeline's environment"
    )


def test_untrusted_code_is_reported(folder):
    assert loading_message(folder, ValueError("pass `trust_remote_code=True`")).endswith(
        "  to mend:  read the code, and if you trust it, set embed.trust_remote_code: true"
    )


def test_other_errors_are_not_converted(folder):
    with pytest.raises(KeyError), report_load_errors(str(folder), "embed"):
        raise KeyError("a bug of ours")


def test_without_an_error_nothing_is_raised(folder):
    with report_load_errors(str(folder), "embed"):
        pass
