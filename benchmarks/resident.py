"""Memory of a command while it runs, all processes that it has started with it."""

from pathlib import Path


def resident(pid: int, figure: str = "VmRSS") -> list[int]:
    """Bytes of a process and of each that it has started; none of one that has ended.

    Args:
      figure: of Linux: `VmRSS`, what it has now, or `VmHWM`, the most that it has had.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        tasks = [path / "children" for path in Path(f"/proc/{pid}/task").iterdir()]
        children = {child for path in tasks for child in path.read_text().split()}
    except OSError:  # it has ended
        return []
    line = next((line for line in status.splitlines() if line.startswith(figure)), "none: 0 kB")
    below = [count for child in children for count in resident(int(child), figure)]
    return [int(line.split()[1]) * 1024, *below]
