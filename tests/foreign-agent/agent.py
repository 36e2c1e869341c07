#!/usr/bin/python3
"""A second runner: an agent for Lazaret's boxes, written from ipc-schema/README.md and nothing else. The next step of a
turn follows from the transcript alone, so a run that resumes after a crash does what the dead one would have done. It
writes no summaries: a conversation longer than the model's window fails."""
import fnmatch, http.client, json, os, signal, socket, subprocess, sys, tempfile, threading, time

TO_AGENT, FROM_AGENT, SOCKET = "/ipc/to-agent", "/ipc/from-agent", "/run/lazaret/gateway.sock"
POLL_S, STATUS_S, AWAY_S, AWAY_TRIES = 0.05, 10, 10, 180
LOST, TEXT = "interrupted; it may have run. Look before you repeat it.", {"type": "string"}
# What the model is told of each tool, and its arguments. The first one is required.
TOOLS = {
    "run_command": ("Runs a shell command in /workspace.", {"command": TEXT}),
    "send_message": ("Posts an interim reply in the chat.", {"text": TEXT}),
    "ask_person": ("Asks the people of the chat.", {"question": TEXT, "choices": {"type": "array", "items": TEXT}}),
}

class Closed(Exception): """The host has written `_close`: begin nothing more."""
class Stopped(Exception): """The host has interrupted the turn."""
def plain(text, most=30_000):  # a text that a letter can carry: each character takes at most six bytes
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:most]

class Transcript:
    """/session/SESSION.jsonl: one entry in a line, on disk before anybody acts on it."""
    def __init__(self, session):
        self.file = open(f"/session/{session}.jsonl", "ab+", buffering=0)
        self.file.seek(0)
        data = self.file.read()
        whole = data.rfind(b"\n") + 1
        self.file.truncate(whole)  # the last run may have died while it wrote
        self.entries = [json.loads(line) for line in data[:whole].splitlines()]

    def append(self, turn, kind, **fields):
        self.entries.append({"turn": turn, "kind": kind, **fields})
        self.file.write((json.dumps(self.entries[-1]) + "\n").encode())
        os.fsync(self.file.fileno())

    def of(self, turn, kind=None):
        return [e for e in self.entries if e["turn"] == turn and kind in (None, e["kind"])]

    def has(self, turn, kind, id):
        return any(e["id"] == id for e in self.of(turn, kind))

    def calls(self, turn):
        return [block for e in self.of(turn, "answer") for block in e["content"] if block["type"] == "tool_use"]

class Mailbox:
    """Letters in both directions."""
    def __init__(self):
        self.next, self.written, self.ack, self.run = 1, 0, 0, None
        self.waiting, self.stopped, self.closing = [], set(), False

    def poll(self):  # in number order; letters that lie beside `_close` come before it
        names = os.listdir(TO_AGENT)
        there = {int(name[:10]): name for name in names if name[:1].isdigit()}
        while self.next in there:
            with open(f"{TO_AGENT}/{there[self.next]}", "rb") as file:
                letter = json.load(file)
            assert letter["v"] == 1, f"version {letter['v']} of the protocol"
            if letter["type"] == "interrupt":
                self.stopped.add(letter["turn"])
            self.waiting.append(letter)
            self.next += 1
        self.closing = self.closing or "_close" in names

    def put(self, kind, body, turn=None, id=None):
        n, at = self.written + 1, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        letter = {"v": 1, "id": id or f"run:{n}", "run": self.run, "n": n, "ack": self.ack, "at": at, "type": kind,
                  "body": body, **({"turn": turn} if turn else {})}
        name = f"{n:010}-{kind}.json"
        with open(f"{FROM_AGENT}/.{name}.part", "x", opener=lambda path, flags: os.open(path, flags, 0o640)) as file:
            json.dump(letter, file)
        os.rename(f"{FROM_AGENT}/.{name}.part", f"{FROM_AGENT}/{name}")
        self.written = n

class Gateway(http.client.HTTPConnection):
    """One call of the model, in a thread of its own, so that letters are read meanwhile."""
    def __init__(self, body):
        super().__init__("gateway")
        self.answer = None
        threading.Thread(target=self.ask, args=(json.dumps(body),), daemon=True).start()

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)

    def ask(self, body):
        try:
            self.request("POST", "/v1/messages", body, {"content-type": "application/json"})
            response = self.getresponse()
            self.answer = (response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            self.answer = (None, str(error))

class Agent:
    def __init__(self, mailbox, begin):
        self.mailbox, self.begin, self.limits = mailbox, begin, begin["limits"]
        self.transcript, self.open = Transcript(begin["session"]), begin.get("open", {"turn": None, "consumed": []})
        self.said, self.over = set(self.open["consumed"]), set(begin["closed"])

    def absorb(self):
        """Takes the waiting letters into the transcript. From then on they are acknowledged."""
        while self.mailbox.waiting:
            letter = self.mailbox.waiting.pop(0)
            turn, body = letter.get("turn"), letter["body"]
            if letter["type"] == "input" and turn not in self.over:
                ids = {m["id"] for e in self.transcript.entries if e["kind"] == "input" for m in e["messages"]}
                new, known = [m for m in body["messages"] if m["id"] not in ids], self.transcript.of(turn, "input")
                fire = None if any(e["fire"] for e in known) else body.get("fire")
                if new or fire or not known:
                    self.transcript.append(turn, "input", messages=new or body["messages"], fire=fire)
            elif letter["type"] == "response" and turn not in self.over:
                verdict = body["verdict"]
                self.result(turn, body["request"].split(":", 1)[1], json.dumps(verdict), verdict["outcome"] != "ok")
            self.mailbox.ack = letter["n"]

    def result(self, turn, id, content, is_error=False):
        if not self.transcript.has(turn, "result", id):
            self.transcript.append(turn, "result", id=id, content=content, is_error=is_error)

    def check(self, turn, finishes=False):
        self.mailbox.poll()
        if turn in self.mailbox.stopped:
            raise Stopped
        if self.mailbox.closing and not finishes:
            raise Closed

    def wait(self, turn, done, state, tool=None, detail="", finishes=False):
        """Waits until `done`, and says so every ten seconds. `finishes`: also after `_close`."""
        said = -STATUS_S
        while not done():
            if time.monotonic() - said >= STATUS_S:
                said = time.monotonic()
                about = {"state": state} | ({"tool": tool, "detail": plain(detail, 200)} if tool else {})
                self.mailbox.put("status", about, turn)
            time.sleep(POLL_S)
            self.check(turn, finishes)
            if tool:  # what comes while the model thinks waits until its answer is in the transcript
                self.absorb()

    def live(self):
        last = self.transcript.entries[-1]["turn"] if self.transcript.entries else None
        resumes = last is not None and last == self.open["turn"]
        if last and not resumes:
            self.give_up(last)
        self.mailbox.put("ready", {"minor": 2, "runner": "foreign-agent 1", "arch": os.uname().machine,
                                   "entries": len(self.transcript.entries), **({"resumes": last} if resumes else {})})
        for call in self.transcript.calls(last) if resumes else []:
            if call["name"] == "send_message" and self.transcript.has(last, "result", call["id"]):
                self.say(last, call)
        while True:
            self.check(None)
            turns = [letter["turn"] for letter in self.mailbox.waiting if letter["type"] == "input"]
            self.absorb()
            for turn in turns:
                if turn not in self.over:
                    self.work(turn)
            time.sleep(POLL_S)

    def give_up(self, turn):
        for call in self.transcript.calls(turn):
            self.result(turn, call["id"], LOST, True)
        self.over.add(turn)

    def work(self, turn):
        self.model_calls = self.tool_calls = 0
        try:
            while (end := self.step(turn)) is None:
                self.absorb()
                self.check(turn)
        except Stopped:
            self.give_up(turn)
            end = self.end(turn, outcome="interrupted")
        self.over.add(turn)
        place = self.transcript.entries.index(self.transcript.of(turn)[-1])
        self.mailbox.put("turn_done", {**end, "model_calls": self.model_calls, "tool_calls": self.tool_calls}, turn,
                         f"{turn}:{place}.end")

    def end(self, turn, **end):
        self.transcript.append(turn, "end", end={"text": "", **end})
        return self.transcript.entries[-1]["end"]

    def step(self, turn):
        """Does what comes next in the transcript. Returns the end of the turn if nothing comes."""
        entries, ends = self.transcript.of(turn), self.transcript.of(turn, "end")
        calls = [call for call in self.transcript.calls(turn) if not self.transcript.has(turn, "result", call["id"])]
        if ends:
            return ends[0]["end"]
        if calls:
            self.tool_calls += 1
            self.use_tool(turn, calls[0])
        elif entries[-1]["kind"] == "answer":
            text = "\n\n".join(block["text"] for block in entries[-1]["content"] if block["type"] == "text")
            return {"outcome": "finished", "text": plain(text)}
        elif any((e.get("fire") or {}).get("gate") for e in entries):
            self.end(turn, outcome="failed", error={"code": "gate.no_shell", "reason": "this runner runs no gates"})
        elif len(self.transcript.of(turn, "answer")) >= self.limits["model_calls"]:
            self.end(turn, outcome="limit", text="I stopped at the limit of model calls.")
        else:
            self.call_model(turn)

    def call_model(self, turn):
        for _ in range(AWAY_TRIES):
            call, again = Gateway(self.request()), time.monotonic() + AWAY_S
            self.wait(turn, lambda: call.answer and (call.answer[0] or time.monotonic() > again), "thinking")
            if call.answer[0]:
                break
        status, data = call.answer
        assert status, f"the gateway cannot be reached: {data}"
        self.model_calls += 1
        if status == 200:
            self.transcript.append(turn, "answer", content=json.loads(data)["content"])
        else:
            why = plain(f"{status}: {data.decode('utf-8', 'replace')}", 1000)
            self.end(turn, outcome="failed", error={"code": "model.refused", "reason": why})

    def request(self):
        """The conversation as the Messages API wants it: roles alternate, and results come first."""
        messages = []
        for e in self.transcript.entries:
            role, blocks = ("assistant", e["content"]) if e["kind"] == "answer" else ("user", [])
            if e["kind"] == "result":
                blocks = [{"type": "tool_result", "tool_use_id": e["id"], **{k: e[k] for k in ("content", "is_error")}}]
            elif e["kind"] == "input":
                lines = [json.dumps(line, ensure_ascii=False) for line in [*e["messages"], e["fire"]] if line]
                blocks = [{"type": "text", "text": "\n".join(lines)}]
            if blocks and (not messages or messages[-1]["role"] != role):
                messages.append({"role": role, "content": []})
            if blocks:
                messages[-1]["content"] += blocks
                messages[-1]["content"].sort(key=lambda block: role == "user" and block["type"] != "tool_result")
        told = [self.begin[name]["text"] for name in ("claude_md_global", "claude_md_group") if name in self.begin]
        system = [f"You are {self.begin['persona']}. Messages of people are lines of JSON.", self.begin["network"]]
        tools = [{"name": name, "description": about, "input_schema": {
            "type": "object", "properties": args, "required": list(args)[:1]}} for name, (about, args) in TOOLS.items()]
        model = self.begin["model"]
        return {"model": model["name"], "max_tokens": model["max_tokens"], "system": "\n\n".join(system + told),
                "tools": tools, "messages": messages}

    def say(self, turn, call):
        id = f"{turn}:{call['id']}.said"
        if id not in self.said:
            self.said.add(id)
            self.mailbox.put("message", {"text": plain(call["input"]["text"])}, turn, id)

    def use_tool(self, turn, call):
        name, args, id = call["name"], call["input"], call["id"]
        fits = (r["verdict"] for r in self.begin["tools"]["rules"] if r["tool"] == name
                and fnmatch.fnmatchcase(args.get("command", ""), r.get("command", "*")))
        if name not in TOOLS or next(iter(TOOLS[name][1])) not in args:
            self.result(turn, id, "there is no such tool, or an argument is missing", True)
        elif name == "ask_person":
            self.mailbox.put("request", {"kind": name, "args": args}, turn, f"{turn}:{id}")
            self.wait(turn, lambda: self.transcript.has(turn, "result", id), "waiting", name)
        elif next(fits, self.begin["tools"]["default"]) in ("ask", "deny"):
            self.result(turn, id, "the owner's rules do not allow this", True)
        elif name == "send_message":
            self.say(turn, call)
            self.result(turn, id, "sent")
        elif self.transcript.has(turn, "began", id):
            self.result(turn, id, LOST, True)
        else:
            self.transcript.append(turn, "began", id=id)
            self.run_command(turn, id, args["command"])

    def run_command(self, turn, id, line):
        with tempfile.TemporaryFile() as output:
            command = subprocess.Popen(["/bin/sh", "-c", line], cwd="/workspace", stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output, start_new_session=True)
            late = time.monotonic() + self.limits["command_s"]
            try:
                self.wait(turn, lambda: command.poll() is not None or time.monotonic() > late, "tool", "run_command",
                          line, finishes=True)
            finally:
                if command.poll() is None:
                    os.killpg(command.pid, signal.SIGKILL)
            output.seek(0)
            said, half = output.read(), self.limits["output_bytes"] // 2
        said = said if len(said) <= 2 * half else said[:half] + b"\n[...]\n" + said[-half:]
        self.result(turn, id, f"exit code {command.wait()}\n{plain(said.decode('utf-8', 'replace'))}")

def main():
    os.umask(0o007)
    os.makedirs(os.environ["HOME"], exist_ok=True)
    mailbox = Mailbox()
    try:
        while not mailbox.waiting:
            mailbox.poll()
            time.sleep(POLL_S)
        begin = mailbox.waiting.pop(0)
        mailbox.run, mailbox.ack = begin["run"], begin["n"]
        Agent(mailbox, begin["body"]).live()
    except Closed:
        return
    except Exception as error:
        if mailbox.run:
            mailbox.put("failed", {"code": "foreign.failed", "reason": plain(str(error), 400)})
        raise
sys.exit(main() if sys.argv[1:] == ["run"] else "usage: agent.py run")
