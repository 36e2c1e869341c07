//! Runs usual work in a Debian image: shells, git, Python, Node and a C compiler run under the posture and its seccomp
//! profile, as the box's user.

#![cfg(test)]

use journeys::world::{Engine, World};
use serde_json::json;

const IMAGE: &str = "lazaret-journeys-toolbox";

/// Name, script, and a word. Each script must end with success and print the word.
const TOOLS: [(&str, &str, &str); 6] = [
    (
        "a shell",
        "diff <(seq 3) <(seq 3) && mkfifo /tmp/f && (echo pipe >/tmp/f &) && read -r x </tmp/f && echo $x | sort | tee /tmp/t; \
         trap 'echo trapped' USR1; kill -USR1 $$; (sleep 0 & wait); ln -s /tmp/t /tmp/l && chmod 600 /tmp/t && touch -d yesterday /tmp/t && echo shell",
        "shell",
    ),
    (
        "git",
        "cd /tmp && git init -q a && cd a && git config user.email a@b && git config user.name a && echo x >x && git add . && \
         git commit -qm one && git checkout -qb two && echo y >>x && git commit -qam two && git gc -q && git clone -q . ../b && \
         git -C ../b log --oneline | wc -l",
        "2",
    ),
    (
        "python and pip",
        "cd /tmp && mkdir -p p/hey && echo 'word = \"python\"' >p/hey/__init__.py && \
         printf '[project]\\nname = \"hey\"\\nversion = \"1\"\\n[build-system]\\nrequires = [\"setuptools\"]\\nbuild-backend = \"setuptools.build_meta\"\\n' >p/pyproject.toml && \
         python3 -m venv --system-site-packages v && v/bin/pip install -q --no-index --no-build-isolation ./p && \
         v/bin/python -c 'import hey, ssl, sqlite3, subprocess, threading, socket, tempfile, multiprocessing as m
c = m.get_context(\"fork\")
with c.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
t = threading.Thread(target=print); t.start(); t.join()
s = socket.create_server((\"127.0.0.1\", 0)); socket.create_connection(s.getsockname()).close()
assert subprocess.run([\"true\"]).returncode == 0
print(hey.word)'",
        "python",
    ),
    (
        "node and npm",
        "cd /tmp && mkdir -p lib app && echo '{\"name\":\"hey\",\"version\":\"1.0.0\"}' >lib/package.json && echo 'module.exports=\"node\"' >lib/index.js && \
         cd app && npm init -y >/dev/null && npm install --offline --no-audit --no-fund ../lib >/dev/null && \
         node -e 'const w=require(\"worker_threads\"),h=require(\"http\"),c=require(\"child_process\");
         c.execSync(\"true\"); new w.Worker(\"0\",{eval:true}).on(\"exit\",()=>{
         const s=h.createServer((q,r)=>r.end(require(\"hey\"))).listen(0,\"127.0.0.1\",()=>h.get({port:s.address().port,host:\"127.0.0.1\"},r=>r.on(\"data\",d=>{console.log(String(d));s.close()})))})'",
        "node",
    ),
    (
        "a compiler and make",
        "cd /tmp && printf '#include <pthread.h>\\n#include <stdio.h>\\nvoid *f(void *x) { puts(x); return 0; }\\n\
         int main(void) { pthread_t t; pthread_create(&t, 0, f, \"compiler\"); return pthread_join(t, 0); }\\n' >m.c && \
         printf 'm: m.c\\n\\tgcc -O2 -pthread -o m m.c\\n' >Makefile && make -sj2 && ./m",
        "compiler",
    ),
    (
        "what is not there",
        "unshare -Ur true 2>&1 | grep -c 'not permitted'; python3 -c 'import socket; socket.socket(40, 1)' 2>&1 | grep -c 'not permitted'; \
         python3 -c 'import socket; socket.socket(2, 1, 132)' 2>&1 | grep -c 'not permitted'; mknod /tmp/d c 1 1 2>&1 | grep -c 'not permitted'; echo closed",
        "1\n1\n1\n1\nclosed",
    ),
];

#[tokio::test]
async fn tools_work_in_a_box_as_its_user() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/toolbox-image.sh");
    let made = tokio::process::Command::new(script).arg(IMAGE).output().await.unwrap();
    assert!(made.status.success(), "no toolbox: {}", String::from_utf8_lossy(&made.stderr));
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &[("LAZARET_IMAGE", IMAGE)]).await;
    for (name, script, word) in TOOLS {
        let ask = format!("try {name}");
        let command = format!("set -e; bash -c {}", quoted(script));
        world.model.on(&ask).runs("run_command", json!({ "command": command })).says(name);
        ann.says(&direct, &ask);
        assert_eq!(world.hears(&direct).await, name);
        let told = world.model.tool_results().pop().unwrap();
        assert!(told.trim_end().ends_with(word), "{name}:\n{told}");
    }
    world.finish().await;
}

/// Quotes a text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
