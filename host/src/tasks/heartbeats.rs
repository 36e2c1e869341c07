//! Keeps the heartbeats of the groups' files as tasks in the store.

use std::fmt;

use super::Tasks;
use crate::config::heartbeats::prompt;
use crate::domain::group_settings::{Group, Heartbeat};
use crate::domain::task::{FROM_FILE, Task, TaskState};
use crate::domain::{ChatId, GroupName};
use crate::policy::heartbeats;
use crate::policy::task_request::TaskRefusal;
use crate::store::{Adding, StoreError};

/// Why a heartbeat is no task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub group: GroupName,
    /// The heartbeat's name.
    pub name: String,
    pub why: String,
    pub code: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the heartbeat {:?} of {FROM_FILE} is not planned: {}", self.name, self.why)
    }
}

/// A task as it is, and as the files want it.
type Change = (Option<Task>, Task);

impl Tasks<'_> {
    /// Makes the tasks in the store as the files want them: adds, changes and cancels. Writes nothing if nothing has
    /// changed. A file that cannot be used leaves its group's heartbeats as they are.
    ///
    /// # Errors
    /// The store's.
    pub async fn follow_files(&self) -> Result<Vec<Problem>, StoreError> {
        let (changes, mut problems) = self.differences().await?;
        for (present, wanted) in changes {
            let (group, name) = (wanted.group.clone(), wanted.name.clone());
            tracing::info!(%group, state = wanted.state.word(), "the heartbeat {name:?} is as {FROM_FILE} has it");
            let verdict = match present {
                // A task that has fired meanwhile is looked at again at the next signal.
                Some(present) => self.store.change_task(present, wanted, self.now).await?,
                None => {
                    let adding = Adding { limit: self.limits(&group).0, made_in: None };
                    Some(self.store.add_task(wanted, adding, self.now).await?)
                }
            };
            if let Some(Err(refusal)) = verdict {
                problems.push(Problem { group, name, why: refusal.to_string(), code: refusal.code() });
            }
        }
        Ok(problems)
    }

    /// The heartbeats that cannot be tasks. Changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn heartbeat_problems(&self) -> Result<Vec<Problem>, StoreError> {
        Ok(self.differences().await?.1)
    }

    async fn differences(&self) -> Result<(Vec<Change>, Vec<Problem>), StoreError> {
        let (mut kept, mut changes, mut problems) = (self.store.heartbeats().await?, Vec::new(), Vec::new());
        for name in self.install.group_names() {
            let Ok(group) = self.install.group(&name) else {
                kept.retain(|task| task.group != name);
                continue;
            };
            for heartbeat in &group.heartbeats {
                let at = kept.iter().position(|task| task.group == name && task.name == heartbeat.name);
                let present = at.map(|at| kept.swap_remove(at));
                match self.wanted(&group, heartbeat, present.as_ref()).await? {
                    Ok(wanted) if present.as_ref() == Some(&wanted) => {}
                    Ok(wanted) => changes.push((present, wanted)),
                    Err((why, code)) => {
                        problems.push(Problem {
                            group: name.clone(),
                            name: heartbeat.name.clone(),
                            why,
                            code,
                        });
                    }
                }
            }
        }
        let cancelled = |task: Task| {
            let end = Task { state: TaskState::Cancelled, next_at: None, ..task.clone() };
            (Some(task), end)
        };
        // A name that is taken out may be used again by another task.
        changes.splice(0..0, kept.into_iter().map(cancelled));
        Ok((changes, problems))
    }

    async fn wanted(
        &self,
        group: &Group,
        heartbeat: &Heartbeat,
        present: Option<&Task>,
    ) -> Result<Result<Task, (String, &'static str)>, StoreError> {
        if present.is_none()
            && let Some(other) = self.store.find_task(group.name.clone(), heartbeat.name.clone()).await?
            && other.name == heartbeat.name
            && matches!(other.state, TaskState::Active | TaskState::Paused)
        {
            let taken = TaskRefusal::NameTaken { name: other.name, id: other.id };
            return Ok(Err((taken.to_string(), taken.code())));
        }
        let text = match prompt(&heartbeat.prompt, &self.install.root.group_folder(&group.name)) {
            Ok(text) => text,
            Err(why) => return Ok(Err((why, "config.value"))),
        };
        let chat = match heartbeat.chat.clone().or_else(|| present.map(|task| task.chat.clone())) {
            Some(chat) => Ok(chat),
            None => self.only_chat(&group.name).await?.map_err(|several| no_chat(&group.name, &several)),
        };
        Ok(chat.map(|chat| heartbeats::task(group, heartbeat, text, chat, present, self.now)))
    }
}

/// Why a heartbeat has no chat.
fn no_chat(group: &GroupName, several: &[ChatId]) -> (String, &'static str) {
    if several.is_empty() {
        return (format!("group {group} has no chat yet"), "task.chat");
    }
    let names = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    (format!("the group has the chats {names}; name one in `chat`"), "task.chat")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Install, Root};
    use crate::domain::{ChatKind, WallMs};
    use crate::store::{Admission, Store};

    const NOW: WallMs = WallMs(1_795_521_600_000);

    struct House {
        dir: tempfile::TempDir,
        store: Store,
        install: Install,
    }

    impl House {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("groups/family")).unwrap();
            let store = Store::open(&dir.path().join("lazaret.db")).unwrap();
            let install = Install::load(Root::new(dir.path()).unwrap(), &Default::default()).unwrap();
            let (group, chat): (GroupName, ChatId) =
                ("family".parse().unwrap(), "telegram:5".parse().unwrap());
            store.group(&group, NOW).await.unwrap();
            let (kind, title, by) = (ChatKind::Room, "Family".into(), "t".into());
            store.admit_chat(Admission { chat, group, kind, title, by, now: NOW }).await.unwrap();
            Self { dir, store, install }
        }

        fn writes(&self, file: &str, text: &str) {
            std::fs::write(self.dir.path().join("groups/family").join(file), text).unwrap();
        }

        /// What the store has after the files were followed, and the codes of the problems.
        async fn follow(&self) -> (Vec<Task>, Vec<&'static str>) {
            let tasks = Tasks { store: &self.store, install: &self.install, now: NOW };
            let problems = tasks.follow_files().await.unwrap();
            (
                self.store.tasks(None, true).await.unwrap(),
                problems.iter().map(|problem| problem.code).collect(),
            )
        }
    }

    const LOOK: &str =
        "[[heartbeat]]\nname = \"look\"\nschedule = \"every 30m\"\nprompt_file = \"look.md\"\n";

    #[tokio::test]
    async fn tasks_follow_the_file() {
        let house = House::new().await;
        house.writes("group.toml", LOOK);
        assert_eq!(house.follow().await, (vec![], vec!["config.value"]), "its prompt is missing");
        house.writes("look.md", "What is due?\n");
        let (added, problems) = house.follow().await;
        assert_eq!((added.len(), problems.len()), (1, 0));
        assert_eq!((added[0].prompt.as_str(), added[0].chat.as_str()), ("What is due?", "telegram:5"));
        assert_eq!(house.follow().await.0, added, "nothing has changed");

        let tasks = Tasks { store: &house.store, install: &house.install, now: NOW };
        let group = "family".parse().unwrap();
        let paused = tasks.set_state(&group, "look", TaskState::Paused).await.unwrap();
        house.writes("look.md", "What is due today?");
        let (changed, _) = house.follow().await;
        assert_eq!(changed, [Task { prompt: "What is due today?".into(), ..paused }], "a pause stays");
        let refused = tasks.set_state(&group, "look", TaskState::Cancelled).await.unwrap_err();
        assert_eq!(refused.code(), "task.from_file");

        house.writes("group.toml", "not toml");
        assert_eq!(house.follow().await.0, changed, "a broken file takes nothing away");
        house.writes("group.toml", "");
        assert_eq!(house.follow().await.0[0].state, TaskState::Cancelled);
        house.writes("group.toml", LOOK);
        let states: Vec<_> = house.follow().await.0.iter().map(|task| task.state).collect();
        assert_eq!(states, [TaskState::Cancelled, TaskState::Active]);
    }

    #[tokio::test]
    async fn the_chat_of_the_command_line_is_no_second_chat() {
        let house = House::new().await;
        let (group, chat): (GroupName, ChatId) =
            ("family".parse().unwrap(), "terminal:family".parse().unwrap());
        let (kind, title, by) = (ChatKind::Direct, "Terminal".into(), "t".into());
        house.store.admit_chat(Admission { chat, group, kind, title, by, now: NOW }).await.unwrap();
        house.writes("group.toml", &LOOK.replace("prompt_file = \"look.md\"", "prompt = \"Look.\""));
        let (tasks, problems) = house.follow().await;
        assert_eq!((tasks[0].chat.as_str(), problems.len()), ("telegram:5", 0));
    }

    #[tokio::test]
    async fn a_name_that_another_task_has_is_refused_and_so_is_a_foreign_chat() {
        let house = House::new().await;
        house.writes("group.toml", &LOOK.replace("prompt_file = \"look.md\"", "prompt = \"Look.\""));
        let (own, _) = house.follow().await;
        let taken =
            Task { origin: crate::domain::task::TaskOrigin { by: "m-1".into(), depth: 0 }, ..own[0].clone() };
        house.writes("group.toml", "");
        house.follow().await;
        let adding = Adding { limit: 50, made_in: None };
        house.store.add_task(taken, adding, NOW).await.unwrap().unwrap();
        house.writes("group.toml", &LOOK.replace("prompt_file = \"look.md\"", "prompt = \"Look.\""));
        assert_eq!(house.follow().await.1, ["task.name_taken"]);
        let elsewhere =
            "[[heartbeat]]\nname = \"x\"\nschedule = \"hourly\"\nprompt = \"x\"\nchat = \"telegram:9\"\n";
        house.writes("group.toml", elsewhere);
        assert_eq!(house.follow().await.1, ["task.chat"]);
    }
}
