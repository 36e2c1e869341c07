//! A model that plays a script and checks every request against the API's rules.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use ipc_schema::letters::from_agent::ErrorDetail;
use serde_json::{Value, json};

use super::messages_api_rules;
use crate::model::{Answer, CallError, Draft, Failure, Model};
use crate::transcript::{Assistant, Block, Usage};

pub enum Play {
    Answers(Answer),
    Fails(CallError),
    /// Runs a callback while the model "thinks".
    Meanwhile(Box<dyn FnOnce()>, Answer),
    /// Streams this text and never ends.
    Hangs(&'static str),
}

#[derive(Clone, Default)]
pub struct Script {
    plays: Rc<RefCell<VecDeque<Play>>>,
    requests: Rc<RefCell<Vec<Value>>>,
    /// Answers every request for a summary, which has no tools.
    summary: Rc<RefCell<Option<&'static str>>>,
}

pub fn says(text: &str) -> Assistant {
    let block = json!({"type": "text", "text": text});
    Assistant {
        blocks: vec![Block::new(&block.to_string()).unwrap()],
        stop_reason: Some("end_turn".into()),
        usage: Usage::default(),
        model: None,
        bad_inputs: Default::default(),
    }
}

/// Tool calls as (id, name, input).
pub fn calls(calls: &[(&str, &str, Value)]) -> Assistant {
    let block = |(id, name, input): &(&str, &str, Value)| {
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": input});
        Block::new(&block.to_string()).unwrap()
    };
    Assistant { blocks: calls.iter().map(block).collect(), stop_reason: Some("tool_use".into()), ..says("") }
}

pub fn refusal(code: &str, reason: &str, too_long: bool) -> CallError {
    CallError::Failed(Failure {
        trouble: ErrorDetail { code: code.into(), reason: reason.into() },
        too_long,
        window: None,
    })
}

impl Script {
    pub fn new(plays: impl IntoIterator<Item = Play>) -> Self {
        let script = Self::default();
        script.plays.borrow_mut().extend(plays);
        script
    }

    /// Answers each request for a summary with this text, beside the script.
    pub fn summarising(self, text: &'static str) -> Self {
        *self.summary.borrow_mut() = Some(text);
        self
    }

    pub fn says(text: &str) -> Play {
        Play::Answers(says(text))
    }

    pub fn calls(id: &str, name: &str, input: Value) -> Play {
        Play::Answers(calls(&[(id, name, input)]))
    }

    pub fn requests(&self) -> Vec<Value> {
        self.requests.borrow().clone()
    }

    pub fn last_user(&self) -> String {
        self.requests().last().unwrap()["messages"].as_array().unwrap().last().unwrap().to_string()
    }

    pub fn left(&self) -> usize {
        self.plays.borrow().len()
    }
}

impl Model for Script {
    async fn call(&self, body: String, draft: &Draft) -> Result<Answer, CallError> {
        let request: Value = serde_json::from_str(&body).unwrap();
        messages_api_rules::check(&request);
        let is_summary = request.get("tools").is_none();
        self.requests.borrow_mut().push(request);
        if let Some(text) = self.summary.borrow().filter(|_| is_summary) {
            return Ok(says(text));
        }
        let play = self.plays.borrow_mut().pop_front();
        match play {
            Some(Play::Answers(answer)) => Ok(answer),
            Some(Play::Fails(error)) => Err(error),
            Some(Play::Meanwhile(what, answer)) => {
                what();
                Ok(answer)
            }
            Some(Play::Hangs(text)) => {
                draft.push(text);
                std::future::pending().await
            }
            None => panic!("the script has ended: {body}"),
        }
    }

    async fn wait_until_reachable(&self) {
        std::future::pending().await
    }
}
