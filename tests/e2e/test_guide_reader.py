"""The reader of guides: a page that is wrong in one place does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.guide import follow

PAGE = """
# A guide
<!-- file: there/name.txt -->
```text
Ada
```

```sh
cd there
echo "hello,   $(cat name.txt)"
```
<!-- output -->
```text
hello, …a
```

<!-- answer: yes -->
```sh
read -r said
echo "you said $said"
```

<!-- refused: some.code -->
```sh
bash -c 'echo "error: some.code"; exit 1'
```

<!-- terminal, until: ready -->
```sh
echo starting
echo ready
exec sleep 600
```

<!-- run -->
```python
from pathlib import Path
print(Path("there/name.txt").read_text())
```
<!-- output -->
```text
you said yes
error: some.code
Ada
```

<!-- not run: it would take an hour -->
```sh
sleep 3600
```
"""


async def read(tmp_path: Path, text: str, **options: object) -> str:
    (tmp_path / "page.md").write_text(text)
    return await follow(tmp_path / "page.md", tmp_path, seconds=60, **options)  # type: ignore[arg-type]


async def test_a_page_is_followed(tmp_path: Path) -> None:
    printed = await read(tmp_path, PAGE)
    assert "hello,   Ada" in printed


async def test_a_terminal_that_is_open_is_not_opened_again(tmp_path: Path) -> None:
    command = "echo starting\necho ready\nexec sleep 600"
    assert "=-=-= step" in await read(
        tmp_path, PAGE.replace("echo ready", "echo nothing"), running=[command.replace("echo ready", "echo nothing")]
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("hello, …a", "hello, …z", "was not printed"),
        ("you said yes\nerror: some.code", "error: some.code\nyou said yes", "was not printed"),
        ('echo "hello', 'echoo "hello', "ended with"),
        ("echo ready\nexec sleep 600", "false", "ended with"),
        ("exit 1'", "exit 0'", "ended with"),
        ("exit 1'", "exit 2'", "ended with"),
        ("refused: some.code", "refused: other.code", "ended with"),
        ("<!-- run -->\n", "", "neither run"),
        ("<!-- output -->\n```text\nhello", "```text\nhello", "neither run"),
        ("<!-- answer: yes -->\n", "<!-- anwser: yes -->\n", "neither run"),
        ("```sh\ncd there", "  ```sh\ncd there", "a plain block is neither run"),
        ("```sh\nsleep 3600\n```\n", "  ```sh\n  sleep 3600\n  ```\n", "fences belong to no block"),
    ],
)
async def test_one_mistake_is_found(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert PAGE.count(old) == 1
    with pytest.raises(AssertionError, match=says):
        await read(tmp_path, PAGE.replace(old, new))
