//! Permissions that owners give: the verdict, and the rules that "always" makes.

use ipc_schema::letters::to_agent::AlwaysAllowed;

use super::*;
use crate::domain::permission::AskedPermission;
use crate::store::Granting;

const REQUEST: &str = "t-1:toolu_1";

impl House {
    /// A box has asked for a permission. Returns the code of the question.
    async fn needs(&mut self, commands: &[&str], of_request: bool) -> String {
        self.wakes("telegram:-1", "go").await;
        self.starts(RUN).await;
        self.is_given(RUN).await;
        let body = TakenEffect::Request { kind: "ask_permission".into(), body: "{}".into(), limit: 9 };
        self.takes_from(RUN, 1, 2, Some(TurnId(1)), REQUEST, body).await;
        let tool = if of_request { "remind" } else { "run_command" };
        let commands = commands.iter().map(|&command| command.to_owned()).collect();
        let new = NewQuestion {
            turn: TurnId(1),
            request: REQUEST.parse().unwrap(),
            chat: chat("telegram:-1"),
            ask: AskPerson { question: "May I?".into(), choices: vec![] },
            permission: Some(AskedPermission { tool: tool.into(), commands, of_request }),
            expires: T.plus(std::time::Duration::from_secs(60)),
            now: T,
        };
        let say = |code: &str| Some(OutgoingText::notice(&chat("telegram:-1"), REQUEST, code.to_owned()));
        self.store.ask(new, say).await.unwrap();
        self.said("telegram:-1").await.remove(0)
    }

    async fn owner_answers(&mut self, line: &str) -> AnswerTaken {
        let owner =
            Admitted { owner: true, ..self.message("telegram:-1", line, Role::Command(Command::Answer)) };
        let seq = self.take_in(vec![owner]).await.remove(0).seq;
        self.store.answer(seq, T).await.unwrap()
    }

    async fn granting(&self) -> Granting {
        self.store.granting(family(), "remind", TurnId(1), REQUEST.parse().unwrap()).await.unwrap()
    }

    async fn allowed(&self) -> Vec<AlwaysAllowed> {
        self.store.begin_state(lane()).await.unwrap().allowed
    }
}

#[tokio::test]
async fn an_owner_allows_once_or_always_and_nobody_else_does() {
    let mut h = house().await;
    let code = h.needs(&["git push", "rm x"], false).await;
    assert_eq!(h.answers(&format!("/answer {code} 1")).await, AnswerTaken::OwnersOnly);
    assert_eq!(h.owner_answers(&format!("/answer {code} maybe")).await, AnswerTaken::Unknown);
    assert_eq!(h.allowed().await, []);
    assert_eq!(h.owner_answers(&format!("/answer {code} 2")).await, AnswerTaken::GoesOn(lane()));
    let told = h.told(RUN).await;
    assert!(told.len() == 1 && told[0].contains("\"always\": true"), "{told:?}");
    let commands: Vec<_> = h.allowed().await.into_iter().filter_map(|allowed| allowed.command).collect();
    assert_eq!(commands, ["rm x", "git push"], "the newest first");
    let rules = h.store.tool_rules(family()).await.unwrap();
    assert_eq!(rules[0].made_by, "telegram:5");
    assert!(h.store.forget_tool_rule(family(), rules[0].id, "terminal".into(), T).await.unwrap());
    assert!(!h.store.forget_tool_rule(family(), rules[0].id, "terminal".into(), T).await.unwrap());
    assert_eq!(h.allowed().await.len(), 1);
}

#[tokio::test]
async fn a_request_waits_until_it_is_allowed_and_has_no_verdict_before_it_is_performed() {
    let mut h = house().await;
    assert_eq!(h.granting().await, Granting::NotAsked);
    let code = h.needs(&[], true).await;
    assert_eq!(h.granting().await, Granting::Waits);
    assert_eq!(h.owner_answers(&format!("/answer {code} 1")).await, AnswerTaken::GoesOn(lane()));
    assert_eq!(h.granting().await, Granting::Granted);
    assert_eq!(h.told(RUN).await, Vec::<String>::new());
    assert_eq!(h.store.open_requests(RUN.parse().unwrap()).await.unwrap().len(), 1, "it is performed now");
    assert_eq!(h.allowed().await, []);
}

#[tokio::test]
async fn a_request_that_is_denied_or_not_decided_is_refused() {
    for (line, told) in [("3", "an owner has denied"), ("", "counts as a no")] {
        let mut h = house().await;
        let code = h.needs(&[], true).await;
        match line {
            "" => drop(h.store.expire_questions(T.plus(std::time::Duration::from_secs(60))).await.unwrap()),
            line => drop(h.owner_answers(&format!("/answer {code} {line}")).await),
        }
        let verdict = h.told(RUN).await;
        assert!(verdict.len() == 1 && verdict[0].contains("ipc.forbidden"), "{verdict:?}");
        assert!(verdict[0].contains(told), "{verdict:?}");
        assert_eq!(h.owner_answers(&format!("/answer {code} 2")).await, AnswerTaken::Unknown);
        assert_eq!(h.allowed().await, []);
    }
}

#[tokio::test]
async fn every_call_of_a_tool_that_is_always_allowed_is_granted() {
    let mut h = house().await;
    let code = h.needs(&[], true).await;
    h.owner_answers(&format!("/answer {code} always")).await;
    let other = "t-1:toolu_2".parse().unwrap();
    let granting = h.store.granting(family(), "remind", TurnId(1), other).await.unwrap();
    assert_eq!(granting, Granting::Granted);
    assert_eq!(h.allowed().await, [AlwaysAllowed { tool: "remind".into(), command: None }]);
}

#[tokio::test]
async fn a_permission_that_nobody_waits_for_any_more_is_over() {
    let mut h = house().await;
    let code = h.needs(&["git push"], false).await;
    h.wakes("telegram:-1", "wait").await;
    h.is_given(RUN).await;
    assert!(h.told(RUN).await[0].contains("pending"));
    assert_eq!(h.owner_answers(&format!("/answer {code} 2")).await, AnswerTaken::Over);
    assert_eq!(h.allowed().await, []);
}
