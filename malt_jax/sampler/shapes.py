"""The few sizes that arrays of varying length are padded to, so that few programs are compiled."""


def bucket(size: int, least: int = 32) -> int:
    """The smallest of least, 1.5 least, 2 least, 3 least, 4 least, ... that is no less than
    `size`."""
    power = least
    while power < size:
        if power * 3 // 2 >= size:
            return power * 3 // 2
        power *= 2
    return power
