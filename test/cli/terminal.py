"""Runs a command on a terminal of its own and types at its prompts.

    terminal.py PROMPT=ANSWER... -- COMMAND...     answers in hexadecimal; prints what the terminal showed

The exit code is the command's. A prompt is awaited after the last answer's.
"""

import os
import pty
import select
import sys
import time

LIMIT_S = 50


def main():
    split = sys.argv.index("--")
    answers = [each.rsplit("=", 1) for each in sys.argv[1:split]]
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
    shown, since = b"", 0
    until = time.time() + LIMIT_S
    while time.time() < until:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        shown += data
        if not data:
            break
        if answers and answers[0][0].encode() in shown[since:]:
            since = len(shown)
            # The prompt is written before the terminal is set.
            time.sleep(0.3)
            os.write(terminal, bytes.fromhex(answers.pop(0)[1]))
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


main()
