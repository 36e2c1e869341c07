//! Input letters: they bring a run the messages of its lane's open turn. `begin` tells a run about earlier turns.

use ipc_schema::letters::to_agent::AlwaysAllowed;
use rusqlite::{Connection, Row, params};

use super::attachments::{self, Waiting};
use super::fires::{self, FireInput};
use super::groups::chat_facts;
use super::letters_to_agent::{ToWrite, next_letter};
use super::turns::{self, OpenTurnRow};
use super::{Result, Store, StoreError, id, int, names, parse, tasks, tool_rules};
use crate::domain::limits::ContextLimits;
use crate::domain::message::{Attachment, NameOf, StoredMessage};
use crate::domain::task::Work;
use crate::domain::{ChatId, ChatKind, Lane, LetterId, MessageSeq, RunId, TurnId, WallMs};
use crate::turns::Event;

/// A letter is at most 256 KiB, and the context is added to the messages. The rest of many messages goes into the next
/// letter.
const INPUT_BYTES: usize = 150 * 1024;
/// The most bytes of context in a letter, besides the messages.
const CONTEXT_BYTES: usize = 60 * 1024;
/// How many of the context messages that were left out are counted. A room can hold hundreds of thousands.
const OMITTED_COUNTED: i64 = 1_000;
/// How many closed turns `begin` lists.
const CLOSED_LISTED: i64 = 20;

/// The part of `begin` about turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginState {
    /// The open turn, and the ids of its consumed letters.
    pub open: Option<(OpenTurnRow, Vec<LetterId>)>,
    /// The newest closed turns of the lane.
    pub closed: Vec<TurnId>,
    /// The model of the lane's task, if it names one.
    pub model: Option<String>,
    /// What owners always allow to the group.
    pub allowed: Vec<AlwaysAllowed>,
}

/// The content of an input letter.
#[derive(Debug, Clone, PartialEq)]
pub struct InputState {
    pub turn: TurnId,
    pub chat: ChatId,
    pub kind: ChatKind,
    pub title: String,
    /// The messages that this run has not got, in order.
    pub messages: Vec<StoredMessage>,
    /// How many context messages were left out, counted up to 1,000.
    pub omitted: u64,
    /// The fire that caused the turn, in the first letter that this run gets of it.
    pub fire: Option<FireInput>,
}

/// Whether a letter waits for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileWait {
    /// It waits, so that messages and their files go together.
    Whole,
    /// It has waited once. Messages whose files are still not fetched go into a later letter, because otherwise this
    /// letter could wait for ever.
    Spent,
}

/// The result of [`Store::compose_input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Composed {
    /// The run has got all messages.
    Nothing,
    /// The row of the letter is stored.
    Letter(TurnId, ChatId, ToWrite),
    /// Nobody has tried to fetch these files of the turn yet. The letter would name them.
    Files(TurnId, Vec<Waiting>),
}

impl Store {
    /// The part of `begin` about a lane's turns.
    pub async fn begin_state(&self, lane: Lane) -> Result<BeginState> {
        self.read(move |c| {
            let open = match turns::open_of_lane(c, &lane)? {
                None => None,
                Some(open) => {
                    let sql = "SELECT DISTINCT id FROM consumed WHERE turn = ?1 ORDER BY id";
                    let mut rows = c.prepare(sql)?;
                    let ids = rows.query_map([int(open.turn.0)], |r| r.get::<_, String>(0))?;
                    let ids = ids.map(|i| parse("consumed.id", &i?)).collect::<Result<_>>()?;
                    Some((open, ids))
                }
            };
            let sql = "SELECT id FROM turn WHERE lane = ?1 AND state <> 'open' ORDER BY id DESC LIMIT ?2";
            let mut rows = c.prepare(sql)?;
            let closed = rows.query_map(params![lane.to_string(), CLOSED_LISTED], |r| r.get::<_, i64>(0))?;
            let closed = closed.map(|t| Ok(TurnId(id(t?)))).collect::<Result<_>>()?;
            let task = lane.task_id().map(|task| tasks::by_id(c, task)).transpose()?.flatten();
            let model = match task.map(|task| task.work) {
                Some(Work::Agent(work)) => work.model,
                _ => None,
            };
            let allowed = tool_rules::for_begin(c, &lane.group)?;
            Ok(BeginState { open, closed, model, allowed })
        })
        .await
    }

    /// Stores the next input letter for a run, with messages of the lane's open turn that the run has not got. The row
    /// is stored before the file is written. The caller repeats the call until nothing is new.
    pub async fn compose_input<F>(
        &self,
        run: RunId,
        lane: Lane,
        limits: ContextLimits,
        patience: FileWait,
        now: WallMs,
        build: F,
    ) -> Result<Composed>
    where
        F: FnOnce(u64, InputState) -> std::result::Result<Vec<u8>, ipc_schema::Refusal> + Send + 'static,
    {
        let composed = self
            .write(move |c| {
                failpoint!("store.input.begin", super::injected);
                let Some(open) = turns::open_of_lane(c, &lane)? else { return Ok(Composed::Nothing) };
                let (mut messages, omitted) = ungiven(c, &run, &open, limits)?;
                if patience == FileWait::Spent {
                    attachments::leave_later(&mut messages);
                }
                let fire = fires::ungiven(c, open.turn, run.as_str())?;
                if fire.is_none() && !messages.iter().any(|m| m.wakes) {
                    return Ok(Composed::Nothing);
                }
                for message in &mut messages {
                    names::tell(c, &lane.group, message)?;
                }
                let files = attachments::waiting(&messages);
                if !files.is_empty() {
                    return Ok(Composed::Files(open.turn, files));
                }
                let (kind, title) = chat_facts(c, &open.chat)?;
                let given: Vec<MessageSeq> = messages.iter().map(|m| m.seq).collect();
                let (turn, chat, fired) = (open.turn, open.chat.clone(), fire.as_ref().map(|f| f.fire));
                let state = InputState { turn, chat, kind, title, messages, omitted, fire };
                let letter = next_letter(c, &run, Some(open.turn), "input", now, |n| build(n, state))?;
                for seq in given {
                    let sql = "INSERT OR IGNORE INTO given(run, seq, n) VALUES (?1, ?2, ?3)";
                    c.prepare_cached(sql)?.execute(params![run.as_str(), int(seq.0), int(letter.n)])?;
                }
                if let Some(fire) = fired {
                    fires::given(c, fire, run.as_str())?;
                }
                turns::happen(c, &lane, &Event::Given, now)?;
                Ok(Composed::Letter(open.turn, open.chat, letter))
            })
            .await?;
        failpoint!("store.input.committed");
        Ok(composed)
    }
}

/// Context of a chat (`?1`) that waits, from before a message (`?2`), and that a run (`?3`) has not got; newest first.
const WAITING_CONTEXT: &str = "message m INDEXED BY message_context
    WHERE chat = ?1 AND role = 'context' AND state = 'waiting' AND seq < ?2
      AND seq > (SELECT heard FROM chat WHERE id = ?1)
      AND NOT EXISTS (SELECT 1 FROM given g WHERE g.run = ?3 AND g.seq = m.seq) ORDER BY seq DESC";

/// The messages of the open turn, and the context before them, that `run` has not got.
fn ungiven(
    c: &Connection,
    run: &RunId,
    open: &OpenTurnRow,
    limits: ContextLimits,
) -> Result<(Vec<StoredMessage>, u64)> {
    const FIELDS: &str =
        "seq, chat, role, sender, sender_name, owner, text, version, reply_to, attachments, sent_at, origin";
    let sql = format!(
        "SELECT {FIELDS} FROM message m WHERE turn = ?1 AND role = 'wake' AND state = 'in_turn'
           AND NOT EXISTS (SELECT 1 FROM given g WHERE g.run = ?2 AND g.seq = m.seq) ORDER BY seq"
    );
    let mut rows = c.prepare_cached(&sql)?;
    let rows = rows.query_map(params![int(open.turn.0), run.as_str()], stored)?;
    let mut messages = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let message = row??;
        bytes += weight(&message);
        if bytes > INPUT_BYTES && !messages.is_empty() {
            break;
        }
        messages.push(message);
    }
    let Some(newest) = messages.last().map(|m| m.seq) else { return Ok((messages, 0)) };
    let sql = format!("SELECT {FIELDS} FROM {WAITING_CONTEXT} LIMIT ?4");
    let mut rows = c.prepare_cached(&sql)?;
    let most = i64::try_from(limits.messages).unwrap_or(i64::MAX);
    let rows = rows.query_map(params![open.chat.as_str(), int(newest.0), run.as_str(), most], stored)?;
    let (mut kept, mut tokens) = (0, 0);
    for row in rows {
        let message = row??;
        tokens += message.text.len() / 4 + 20;
        bytes += weight(&message);
        if tokens > limits.tokens || bytes > INPUT_BYTES + CONTEXT_BYTES {
            break;
        }
        kept += 1;
        messages.push(message);
    }
    messages.sort_by_key(|m| m.seq);
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {WAITING_CONTEXT} LIMIT ?4)");
    let counted: i64 = c
        .prepare_cached(&sql)?
        .query_row(params![open.chat.as_str(), int(newest.0), run.as_str(), kept + OMITTED_COUNTED], |r| {
            r.get(0)
        })?;
    Ok((messages, id(counted - kept)))
}

/// The size of a message in a letter: its texts as escaped JSON, and an allowance for names and punctuation.
fn weight(m: &StoredMessage) -> usize {
    let json = |text: &str| serde_json::to_string(text).map_or(text.len() * 6, |t| t.len());
    let quoted = m.reply_to.as_ref().map_or(0, |r| json(&r.text));
    let file = |a: &Attachment| {
        let texts = [&a.problem, &a.transcript, &a.no_transcript].into_iter().flatten();
        1_000 + json(&a.mime) + texts.map(|text| json(text)).sum::<usize>()
    };
    let files: usize = m.attachments.iter().map(file).sum();
    json(&m.text) + quoted + files + 1_200
}

fn stored(r: &Row<'_>) -> rusqlite::Result<Result<StoredMessage>> {
    let seq: i64 = r.get(0)?;
    let (chat, role): (String, String) = (r.get(1)?, r.get(2)?);
    let (reply_to, attachments): (Option<String>, String) = (r.get(8)?, r.get(9)?);
    let row = |why: String| StoreError::Row { what: format!("message {seq}"), why };
    let (sender_id, sender_name, owner, text, version, at) =
        (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?, r.get(10)?);
    let origin = r.get(11)?;
    Ok((|| {
        Ok(StoredMessage {
            seq: MessageSeq(id(seq)),
            chat: parse("message.chat", &chat)?,
            wakes: role == "wake",
            sender_id,
            sender_name,
            owner,
            name: NameOf::default(),
            text,
            origin,
            version,
            reply_to: reply_to
                .map(|t| serde_json::from_str(&t))
                .transpose()
                .map_err(|e| row(e.to_string()))?,
            quoted_name: NameOf::default(),
            attachments: serde_json::from_str(&attachments).map_err(|e| row(e.to_string()))?,
            at: WallMs(at),
        })
    })())
}
