#!/usr/bin/env python3
"""Reads traces by what traces/FORMAT.md says and nothing else, and compares with what `heaptape dump` prints.

    format_reader_test.py HEAPTAPE SOURCE_FOLDER      as a test: the worked example, the golden files, a sample
    format_reader_test.py --dump FILE                 prints the events of one file

It shares no code with the project: a reader in another language could look like this.
"""

import os
import pathlib
import subprocess
import sys

import xxhash
import zstandard

OPS = ["malloc", "calloc", "realloc", "reallocarray", "free", "posix_memalign", "aligned_alloc", "memalign", "valloc",
       "pvalloc", "malloc_trim", "mallopt", "thread_start", "thread_end", "time", "fork", "lost"]
REALLOC, REALLOCARRAY, FREE, MALLOPT, TIME, LOST = 2, 3, 4, 11, 14, 16
THREAD_START, THREAD_END = 12, 13
STARTS = {0, 1, 5, 6, 7, 8, 9}
FAILED, FRESH, NO_SLOT = 0x40, 0x80, 0xFFFFFFFF
DESCRIPTION, EVENTS, CHECKPOINT, INDEX, PARITY = 1, 2, 3, 4, 5
RESTART, SIDE_COMPRESSED = 1, 2
END = 0  # both ends of the list of live objects; node n is slot n - 1
FIRST_HOT, HOT = 35, 221
DICTIONARY = 1 << 16


class Damage(Exception):
    pass


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        if self.at >= len(self.data):
            raise Damage("ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1
            shift += 7
            if shift > 63:
                raise Damage("a varint of more than ten bytes")

    def zigzag(self):
        value = self.varint()
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Damage("ends too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def more(self):
        return self.at < len(self.data)


def u(data):
    return int.from_bytes(data, "little")


class Block:
    """A header at `at`; None where there is no valid one."""

    @staticmethod
    def at(data, at):
        if data[at:at + 4] != b"\xb1\x68\x74\xd0" or at + 24 > len(data):
            return None
        block = Block()
        block.kind, block.flags, block.header_bytes = data[at + 4], data[at + 5], data[at + 6]
        header = data[at:at + block.header_bytes]
        if block.header_bytes < 24 or len(header) < block.header_bytes:
            return None
        zeroed = header[:12] + bytes(4) + header[16:]
        if xxhash.xxh3_64_intdigest(zeroed) & 0xFFFFFFFF != u(header[12:16]):
            return None
        payload_bytes = u(header[8:12])
        block.start, block.end = at, at + block.header_bytes + payload_bytes
        if block.end > len(data):
            return None
        block.payload = data[at + block.header_bytes:block.end]
        block.good = xxhash.xxh3_64_intdigest(block.payload) == u(header[16:24])
        if block.kind in (EVENTS, CHECKPOINT, INDEX):
            fields = Bytes(header[24:])
            (block.first_event, block.event_count, block.first_object, block.object_count, block.start_step, block.steps,
             block.raw_bytes, block.side_bytes, block.peak_objects, block.peak_bytes, block.peak_threads,
             block.lost) = (fields.varint() for _ in range(12))
            block.event_digest, block.touch_digest = u(fields.take(8)), u(fields.take(8))
            block.unmatched_frees = (fields.varint() - 1, fields.varint() - 1) if fields.more() else None
        return block


def blocks(data):
    at = 16
    while at + 24 <= len(data):
        block = Block.at(data, at)
        if block is not None:
            yield block
            at = block.end
        else:
            at = data.find(b"\xb1\x68\x74\xd0", at + 1)
            if at < 0:
                return


def repaired(data):
    """The same bytes with each damaged block in its place that parity brings back."""
    data, covered_from = bytearray(data), 16
    for parity in blocks(bytes(data)):
        if parity.kind != PARITY or not parity.good:
            continue
        fields = Bytes(parity.payload)
        count = fields.varint()
        at, places = parity.start - fields.varint(), []
        for _ in range(count):
            at += fields.varint()
            places.append((at, at + fields.varint()))
            at = places[-1][1]
        rest = fields.take(len(fields.data) - fields.at)
        damaged = []
        for start, end in places:
            block = Block.at(bytes(data[start:end]), 0)
            if block is None or not block.good or block.end != end - start:
                damaged.append((start, end))
        if places[0][0] >= covered_from and places[-1][1] <= parity.start and len(damaged) == 1:
            total = u(rest)
            for start, end in places:
                if (start, end) != damaged[0]:
                    total ^= u(data[start:end])
            start, end = damaged[0]
            again = total.to_bytes(len(rest), "little")[:end - start]
            block = Block.at(again, 0)
            if block is not None and block.good and block.end == len(again):
                data[start:end] = again
        covered_from = parity.end
    return bytes(data)


class Live:
    """The list of live objects in the order of their start, and the slots."""

    def __init__(self):
        self.next, self.previous, self.alive, self.free = [0], [0], [False], []

    def start(self):
        if self.free:
            node = self.free.pop()
        else:
            node = len(self.next)
            self.next.append(0)
            self.previous.append(0)
            self.alive.append(False)
        self.append(node)
        return node

    def append(self, node):
        last = self.previous[END]
        self.next[node], self.previous[node] = END, last
        self.next[last] = self.previous[END] = node
        self.alive[node] = True

    def end(self, node):
        before, after = self.previous[node], self.next[node]
        self.next[before], self.previous[after] = after, before
        self.alive[node] = False
        self.free.append(node)


class Dictionary:
    def __init__(self):
        self.requests, self.scores, self.tokens, self.hot = [], [], [], []

    def add(self, request):
        if len(self.requests) >= DICTIONARY:
            return
        number = len(self.requests)
        token = None
        if len(self.hot) < HOT:
            token = FIRST_HOT + len(self.hot)
            self.hot.append(number)
        self.requests.append(request)
        self.scores.append(0)
        self.tokens.append(token)

    def end_block(self):
        scores = self.scores
        if len(self.requests) > HOT:
            least = min(scores[number] for number in self.hot)
            up = [number for number in range(len(scores)) if self.tokens[number] is None and scores[number] // 2 > least]
            up.sort(key=lambda number: (-scores[number], number))
            down = sorted(self.hot, key=lambda number: (scores[number], number))
            for first, second in zip(up, down):
                if scores[first] // 2 <= scores[second]:
                    break
                token = self.tokens[second]
                self.tokens[first], self.tokens[second] = token, None
                self.hot[token - FIRST_HOT] = first
        self.scores = [score // 2 for score in scores]


class Reader:
    def __init__(self, data):
        if data[:8] != b"\x89\x48\x54\x50\x0d\x0a\x1a\x0a" or u(data[8:10]) not in (1, 2):
            raise Damage("no trace of this version")
        self.data = data = repaired(data)
        self.live = Live()
        self.threads = {0}
        self.restart()
        self.step_ns = 1
        self.digest = 0
        for block in blocks(data):
            if block.kind == DESCRIPTION and block.good:
                self.step_ns = self.description(block.payload).get(11, 1) or 1

    @staticmethod
    def description(payload):
        fields, found = Bytes(payload), {}
        while fields.more():
            number, body = fields.varint(), fields.take(fields.varint())
            found[number] = body if number <= 8 else Bytes(body).varint()
        return found

    def restart(self):
        self.dictionary = Dictionary()
        self.gap, self.last_realloc, self.old_gaps, self.last_escape = END, END, [END] * 8, 0
        self.stream = None

    def columns(self, block):
        if block.flags & RESTART:
            self.restart()
            self.stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        raw = self.stream.decompress(block.payload[block.side_bytes:])
        if len(raw) != block.raw_bytes:
            raise Damage("the columns are not as long as stated")
        head = Bytes(raw)
        flags, lengths = head.varint(), [head.varint() for _ in range(12)]
        if flags > 3:
            raise Damage("columns with unknown flags")
        self.second = flags & 2
        if flags & 1:
            self.dictionary = Dictionary()
        return [Bytes(head.take(length)) for length in lengths]

    def walk(self, node, steps, links):
        for _ in range(steps):
            node = links[node]
        return node

    def place(self, place, far_places, escapes):
        """The node, and what far place it was named by."""
        newer, older = self.live.next, self.live.previous
        if place <= 7:
            return self.walk(newer[self.gap], place, newer), None
        if place <= 15:
            return self.walk(self.gap, place - 8, older), None
        if place <= 29:
            return self.walk(older[END], place - 16, older), None
        if place == 30:
            far = far_places.byte()
            if far < 16:
                gap = self.old_gaps[far // 2]
                return (gap if far % 2 else newer[gap]), far
            steps = 8 + (far - 16) // 2
            return (self.walk(self.gap, steps, older) if far % 2 else self.walk(newer[self.gap], steps, newer)), far
        if place == 31:
            node = 1 + (self.last_escape + escapes.zigzag() if self.second else escapes.varint())
            if node < 1 or node >= len(self.live.alive) or not self.live.alive[node]:
                raise Damage("an escape to nothing")
            self.last_escape = node - 1
            return node, None
        return self.last_realloc, None

    def free(self, node, place, far):
        if place not in (0, 8):
            self.old_gaps.pop(far // 2 if far is not None and far < 16 else 7)
            self.old_gaps.insert(0, self.gap)
        self.gap = self.live.previous[node]
        self.old_gaps = [self.gap if gap == node else gap for gap in self.old_gaps]
        if self.last_realloc == node:
            self.last_realloc = END
        self.live.end(node)

    def decode(self, block):
        """Its events: op, flags, thread, slot, size."""
        (tokens, wide, wide_high, new_kinds, new_sizes, realloc_places, far_places, escapes, rare, runs, mark_events,
         mark_steps) = self.columns(block)
        run, thread, step = 0, 0, block.start_step
        until_mark = mark_events.varint() if mark_events.more() else None
        # A hot token means the same throughout a block, but for new requests that take one.
        while True:
            while until_mark == 0:
                step += mark_steps.varint()
                yield TIME, 0, 0, 0, step * self.step_ns
                until_mark = mark_events.varint() if mark_events.more() else None
            if not tokens.more():
                break
            if until_mark is not None:
                until_mark -= 1
            if run == 0:
                run, thread = runs.varint(), runs.varint()
            run -= 1
            token = tokens.byte()
            if token < 32:
                node, far = self.place(token, far_places, escapes)
                if node == END:
                    raise Damage("a free of nothing")
                self.free(node, token, far)
                yield FREE, 0, thread, node - 1, 0
                continue
            if token == 32:
                op, flags, slot, size = rare.byte(), rare.byte(), rare.varint(), rare.varint()
                slot = (slot - 1) % (1 << 32)
                if not flags & FAILED and (op in STARTS or (op in (REALLOC, REALLOCARRAY) and flags & FRESH)):
                    slot = self.live.start() - 1
                if op == THREAD_START:
                    self.threads.add(thread)
                elif op == THREAD_END:
                    self.threads.discard(thread)
                yield op, flags, thread, slot, size
                continue
            dictionary = self.dictionary
            if token == 33:
                request = new_kinds.byte(), new_kinds.byte(), new_sizes.varint()
                dictionary.add(request)
            else:
                number = dictionary.hot[token - FIRST_HOT] if token >= FIRST_HOT else wide.byte() | (wide if self.second else wide_high).byte() << 8
                dictionary.scores[number] += 1
                request = dictionary.requests[number]
            kind, alignment, size = request
            if kind >= 10:
                node, _ = self.place(realloc_places.byte(), far_places, escapes)
                if node == END:
                    raise Damage("a realloc of nothing")
                self.last_realloc = node
                yield (REALLOC if kind == 10 else REALLOCARRAY), alignment, thread, node - 1, size
            else:
                node = self.live.start()
                yield kind, alignment | (FRESH if kind in (REALLOC, REALLOCARRAY) else 0), thread, node - 1, size
        self.dictionary.end_block()

    def checkpoint(self, block):
        """The live objects (slot, op, alignment, size), the free slots, and the threads."""
        raw = Bytes(zstandard.ZstdDecompressor().decompress(block.payload))
        slots, count = raw.varint(), raw.varint()
        threads, requests, request_of, slot_steps, _, free_steps = map(
            lambda length: Bytes(raw.take(length)), [raw.varint() for _ in range(6)])
        alive, at = [], 0
        while threads.more():
            at += threads.varint()
            alive.append(at)
        known = []
        while requests.more():
            request = requests.varint()
            known.append((request & 15, request >> 4, requests.varint()))
        objects, slot = [], 0
        for _ in range(count):
            slot += slot_steps.zigzag()
            objects.append((slot, *known[request_of.varint()]))
            slot += 1
        free, slot = [], 0
        for _ in range(slots - count):
            slot += free_steps.zigzag()
            free.append(slot)
            slot -= 1
        return slots, objects, free, alive

    def restore(self, block, lost):
        """What leads from the objects that are alive here to those of the checkpoint."""
        slots, objects, free, threads = self.checkpoint(block)
        yield LOST, 0, 0, 0, lost
        node = self.live.next[END]
        while node != END:
            yield FREE, 0, 0, node - 1, 0
            node = self.live.next[node]
        for thread in sorted(self.threads - set(threads)):
            yield THREAD_END, 0, thread, 0, 0
        for thread in sorted(set(threads) - self.threads):
            yield THREAD_START, 0, thread, 0, 0
        yield TIME, 0, 0, 0, block.start_step * self.step_ns
        self.live = Live()
        self.live.next, self.live.previous = [0] * (slots + 1), [0] * (slots + 1)
        self.live.alive = [False] * (slots + 1)
        for slot, op, alignment, size in objects:
            self.live.append(slot + 1)
            yield op, alignment | (FRESH if op in (REALLOC, REALLOCARRAY) else 0), threads[0] if threads else 0, slot, size
        self.live.free = [slot + 1 for slot in free]
        self.threads = set(threads)
        self.restart()

    def events(self):
        expected, lost, total = 0, False, 0
        for block in blocks(self.data):
            if block.kind in (EVENTS, CHECKPOINT, INDEX):
                total = max(total, block.first_event + block.event_count)
        for block in blocks(self.data):
            if block.kind == CHECKPOINT and lost and block.good:
                yield from self.restore(block, block.first_event - expected)
                expected, lost = block.first_event, False
            if block.kind != EVENTS or block.event_count == 0:
                continue
            if block.first_event != expected or not block.good:
                lost = True
            if lost:
                continue
            yield from self.decode(block)
            expected += block.event_count
        if expected < total:
            yield LOST, 0, 0, 0, total - expected


def line_of(event):
    op, flags, thread, slot, size = event
    has_slot = op == MALLOPT or (slot != NO_SLOT and (op <= MALLOPT or slot != 0))
    words = ["failed"] if flags & FAILED else []
    if flags & FRESH:
        words.append("fresh")
    log2 = flags & 0x3F
    return " ".join(["-" if op in (TIME, LOST) else str(thread), OPS[op], str(slot) if has_slot else "-", str(size),
                     str(1 << log2 if log2 else 0), ",".join(words) or "-"])


def unmatched_line(data):
    """What the last block says of them, as a line of a dump; None where they were not counted."""
    counted = [block.unmatched_frees for block in blocks(data) if block.kind in (EVENTS, CHECKPOINT, INDEX)][-1]
    return counted and f"#unmatched_frees {counted[0]} {counted[1]}"


def event_lines(text):
    return (line for line in text if not line.startswith("#"))


def compare(name, data, expected, limit=None):
    count = 0
    for event in Reader(data).events():
        line = line_of(event)
        other = next(expected, None)
        if line != other:
            sys.exit(f"{name}: event {count}: read by the format \"{line}\", by heaptape \"{other}\"")
        count += 1
        if count == limit:
            break
    else:
        if (other := next(expected, None)) is not None:
            sys.exit(f"{name}: after {count} events heaptape goes on with \"{other}\"")
    if count == 0:
        sys.exit(f"{name}: no events")
    print(f"{name}: {count} events are the same")


def test(heaptape, source):
    source = pathlib.Path(source)
    text = (source / "traces/FORMAT.md").read_text()
    example = text[text.index("\n## Example\n"):]
    hexadecimal, dump = (block.split("\n```\n")[0] for block in example.split("\n```\n", 1)[1].split("\n```\n\nis dumped as\n\n```\n"))
    data = bytes.fromhex(" ".join(line.split("  ")[0] for line in hexadecimal.splitlines()))
    compare("the worked example", data, event_lines(dump.splitlines()))
    golden = sorted((source / "tests/golden").glob("*.tape"))
    if len(golden) < 4:
        sys.exit("the golden files are missing")
    for path in golden:
        lines = path.with_suffix(".dump").read_text().splitlines()
        compare(path.name, path.read_bytes(), event_lines(lines))
        line = unmatched_line(repaired(path.read_bytes()))
        if [line] * (line is not None) != [line for line in lines if line.startswith("#unmatched_frees")]:
            sys.exit(f"{path.name}: read by the format: {line}")
    sample = source / "traces/samples/guard-small.tape"
    # All of it takes minutes here, where heaptape takes less than a second.
    limit = None if os.environ.get("HEAPTAPE_LONG_TESTS") else 300_000
    with subprocess.Popen([heaptape, "dump", sample], stdout=subprocess.PIPE, text=True) as process:
        compare(sample.name, sample.read_bytes(), event_lines(line.rstrip("\n") for line in process.stdout), limit)
        process.stdout.close()


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--dump":
        for one in Reader(pathlib.Path(sys.argv[2]).read_bytes()).events():
            print(line_of(one))
    elif len(sys.argv) == 3:
        test(*sys.argv[1:])
    else:
        sys.exit(__doc__)
