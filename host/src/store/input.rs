//! Input letters: they bring a run the messages of its lane's open turn. `begin` tells a run about earlier turns.

use ipc_schema::letters::to_agent::AlwaysAllowed;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::attachments::{self, Waiting};
use super::fires::{self, FireInput};
use super::groups::chat_facts;
use super::letters_to_agent::{ToWrite, next_letter};
use super::turns::{self, OpenTurnRow};
use super::{Result, Store, StoreError, id, int, names, parse, tasks, tool_rules};
use crate::domain::limits::ContextLimits;
use crate::domain::message::{NameOf, StoredMessage};
use crate::domain::task::Work;
use crate::domain::{ChatId, ChatKind, Lane, LetterId, MessageSeq, RunId, Session, TurnId, WallMs, session};
use crate::policy::letter_room::{self, weight};
use crate::policy::turn_input::tokens_of_message;
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
    /// The session that the lane continues, or a new one.
    pub session: Session,
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

/// What goes into the letters of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputLimits {
    /// Earlier messages that go along.
    pub context: ContextLimits,
    /// The tokens of the turn's own messages. Those that do not fit are for the next turn.
    pub turn_tokens: usize,
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
                    // Messages come first: the host answers a repeated request, whether it is listed or not.
                    let sql = "SELECT DISTINCT id, EXISTS
                                 (SELECT 1 FROM request q WHERE q.turn = k.turn AND q.id = k.id) AS asked
                               FROM consumed k WHERE turn = ?1 ORDER BY asked, id";
                    let mut rows = c.prepare(sql)?;
                    let ids = rows.query_map([int(open.turn.0)], |r| r.get::<_, String>(0))?;
                    let ids = ids.map(|i| parse("consumed.id", &i?)).collect::<Result<Vec<_>>>()?;
                    Some((open, letter_room::ids_that_fit(ids.into_iter())))
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
            let session = session(c, &lane, open.as_ref().map(|(open, _)| open.turn))?;
            Ok(BeginState { open, closed, model, allowed, session })
        })
        .await
    }

    /// Stores the next input letter for a run, with messages of the lane's open turn that the run has not got. The row
    /// is stored before the file is written. The caller repeats the call until nothing is new.
    pub async fn compose_input<F>(
        &self,
        run: RunId,
        lane: Lane,
        limits: InputLimits,
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
                let fire = fires::ungiven(c, open.turn, run.as_str())?;
                let of_fire = fire.as_ref().map_or(0, FireInput::weight);
                let (mut messages, omitted) = ungiven(c, &run, &open, limits, of_fire)?;
                if patience == FileWait::Spent {
                    attachments::leave_later(&mut messages);
                }
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

/// The session that the lane's runs have used, or a new one.
fn session(c: &Connection, lane: &Lane, turn: Option<TurnId>) -> Result<Session> {
    let sql = "SELECT session FROM grp WHERE name = ?1";
    let number: Option<i64> = c.query_row(sql, [lane.group.as_str()], |r| r.get(0)).optional()?;
    let stem = session::stem(lane, number.map_or(1, id), turn);
    // A `-` follows the stem, or nothing in a name of an earlier version. The next character after `-` is `.`.
    let sql = "SELECT session FROM run INDEXED BY run_session
               WHERE lane = ?1 AND session >= ?2 AND session < ?2 || '.' LIMIT 1";
    let known = c.query_row(sql, params![lane.to_string(), stem], |r| r.get(0)).optional()?;
    Ok(known.map_or_else(
        || Session::new(&stem, uuid::Uuid::new_v4().as_bytes()),
        |name| Session { name, begun: true },
    ))
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
    limits: InputLimits,
    of_fire: usize,
) -> Result<(Vec<StoredMessage>, u64)> {
    const FIELDS: &str =
        "seq, chat, role, sender, sender_name, owner, text, version, reply_to, attachments, sent_at, origin";
    let sql = format!(
        "SELECT {FIELDS}, EXISTS (SELECT 1 FROM given g WHERE g.run = ?2 AND g.seq = m.seq)
         FROM message m WHERE turn = ?1 AND role = 'wake' AND state = 'in_turn' ORDER BY seq"
    );
    let mut rows = c.prepare_cached(&sql)?;
    let rows = rows.query_map(params![int(open.turn.0), run.as_str()], |r| Ok((stored(r)?, r.get(12)?)))?;
    let mut messages = Vec::new();
    let (mut bytes, mut turn_tokens) = (of_fire, 0);
    for (nth, row) in rows.enumerate() {
        let (message, given): (_, bool) = row?;
        let mut message = message?;
        turn_tokens += tokens(&message);
        // The turn takes in at least one message, and so does each letter.
        if turn_tokens > limits.turn_tokens && nth > 0 {
            break;
        }
        if given {
            continue;
        }
        letter_room::fit_message(&mut message, of_fire);
        bytes += weight(&message);
        if bytes > INPUT_BYTES && !messages.is_empty() {
            break;
        }
        messages.push(message);
    }
    let Some(newest) = messages.last().map(|m| m.seq) else { return Ok((messages, 0)) };
    let sql = format!("SELECT {FIELDS} FROM {WAITING_CONTEXT} LIMIT ?4");
    let mut rows = c.prepare_cached(&sql)?;
    let limits = limits.context;
    let most = i64::try_from(limits.messages).unwrap_or(i64::MAX);
    let rows = rows.query_map(params![open.chat.as_str(), int(newest.0), run.as_str(), most], stored)?;
    let (mut kept, mut tokens) = (0, 0);
    for row in rows {
        let mut message = row??;
        letter_room::fit_message(&mut message, 0);
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

/// The tokens of a message that a model reads.
fn tokens(m: &StoredMessage) -> usize {
    let quoted = m.reply_to.iter().map(|r| r.text.as_str());
    let spoken = m.attachments.iter().filter_map(|a| a.transcript.as_deref());
    tokens_of_message([m.text.as_str()].into_iter().chain(quoted).chain(spoken))
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
