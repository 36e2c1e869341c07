use super::*;

const TELEGRAM: ChannelName = ChannelName::new("telegram");

fn install(text: &str, env: &[(&str, &str)]) -> Result<Install, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lazaret.toml"), text).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Install::load(Root::new(dir.path()).unwrap(), &env)
}

/// The mistakes of both files, one line each, without the path of the install.
fn mistakes(install: &str, group: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("groups/main")).unwrap();
    std::fs::write(dir.path().join("lazaret.toml"), install).unwrap();
    std::fs::write(dir.path().join("groups/main/group.toml"), group).unwrap();
    let checked = Install::check_all(Root::new(dir.path()).unwrap(), &BTreeMap::new());
    let here = format!("{}/", dir.path().display());
    checked
        .err()
        .map(|e| e.to_string().replace(&here, "").lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

fn complaint(text: &str) -> String {
    let error = install(text, &[]).unwrap_err().to_string();
    error.split_once("lazaret.toml").unwrap().1.to_owned()
}

#[test]
fn an_empty_file_is_a_whole_install() {
    let install = install("", &[]).unwrap();
    assert_eq!(install.model.provider, "demo");
    let main = install.group(&GroupName::main()).unwrap();
    assert_eq!(main.limits, crate::domain::limits::RunLimits::default());
    assert_eq!((main.context.messages, main.image.as_str()), (50, "lazaret-agent"));
}

#[test]
fn a_mistyped_key_is_shown_with_its_place_and_its_neighbour() {
    assert_eq!(
        complaint("persona = \"Laz\"\n\n[limits]\nidel_window = 5\n"),
        ":4:1: there is no setting `idel_window` here; did you mean `idle_window`?"
    );
    assert!(complaint("quite_something_else = 1").contains("config show"));
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    assert_eq!(
        complaint("[host]\nworking_runs = \"four\""),
        ":2:16: host.working_runs = \"four\" is not allowed; it is a whole number from 1 to 10000"
    );
    assert!(complaint("[limits]\nturn = \"soon\"").contains("a length of time such as \"5m\""));
    assert!(complaint("zone = \"Europe/Atlantis\"").contains("Europe/Berlin"));
    assert!(complaint("owners = [\"12345\"]").contains("CHANNEL:ID"));
    assert!(complaint("[host\n").starts_with(":1:"));
}

#[test]
fn a_value_that_is_not_allowed_is_shown_with_its_place_and_the_values_that_are() {
    assert_eq!(
        complaint("[host]\nnight_hour = 24"),
        ":2:14: host.night_hour = 24 is not allowed; it is a whole number from 0 to 23"
    );
    assert_eq!(
        complaint("limits = { turn = \"0s\" }"),
        ":1:19: limits.turn = \"0s\" is not allowed; it is a length of time such as \"5m\", of at least \"1s\""
    );
    assert!(complaint("limits.turn = 0").contains("limits.turn = 0 is not allowed"));
    let error = install("[host]\nnight_hour = 3", &[("LAZARET_HOST_NIGHT_HOUR", "30")]).unwrap_err();
    assert!(error.to_string().starts_with("LAZARET_HOST_NIGHT_HOUR: host.night_hour = 30"), "{error}");
    assert!(install("[limits]\nidle_window = 0", &[]).is_ok());
}

#[test]
fn the_schema_speaks_the_words_of_json_schema_alone() {
    let text = format!("{}{}", schema_of_install(), schema_of_group());
    for word in ["\"order\":[", "\"range\":", "\"rule\":", "\"default\":null"] {
        assert!(!text.contains(word), "{word}");
    }
    let host = &schema_of_install()["$defs"]["HostFile"]["properties"];
    assert_eq!((&host["night_hour"]["minimum"], &host["night_hour"]["maximum"]), (&0.into(), &23.into()));
    assert_eq!(host["drain"]["default"], "30s");
    let limits = &schema_of_group()["$defs"]["LimitsFile"]["properties"];
    assert_eq!(
        limits["memory_mib"]["default"],
        serde_json::Value::Null,
        "a group's default is the install's"
    );
    let help = limits["turn"]["description"].as_str().unwrap();
    assert_eq!(help, "How long a turn may take. At least \"1s\".");
    assert!(
        limits["pids"]["description"]
            .as_str()
            .unwrap()
            .ends_with("A group may only have less than the install.")
    );
}

#[test]
fn zero_gives_one_container_per_turn() {
    let install = install("[limits]\nidle_window = 0", &[]).unwrap();
    assert!(install.group(&GroupName::main()).unwrap().limits.idle_window.0.is_zero());
}

#[test]
fn the_environment_overrides_the_file_and_says_so() {
    let env =
        [("LAZARET_HOST_WORKING_RUNS", "7"), ("LAZARET_MODEL_NAME", "m-1"), ("LAZARET_LIMITS_TURN", "1h")];
    let install = install("[host]\nworking_runs = 2\nlive_boxes = 3", &env).unwrap();
    assert_eq!((install.file.host.working_runs, install.model.model.as_str()), (7, "m-1"));
    let source =
        |name: &str| install.shown().iter().find(|s| s.name == name).map(|s| s.source.clone()).unwrap();
    assert_eq!(source("host.working_runs"), "LAZARET_HOST_WORKING_RUNS");
    assert!(source("host.live_boxes").ends_with("lazaret.toml"));
    assert_eq!(source("limits.memory_mib"), "default");
}

#[test]
fn a_variable_that_overrides_nothing_is_refused() {
    let error = install("", &[("LAZARET_HOST_WORKING_RUN", "7")]).unwrap_err();
    assert!(error.to_string().contains("LAZARET_HOST_WORKING_RUNS?"), "{error}");
    let error = install("", &[("LAZARET_HOST_WORKING_RUNS", "many")]).unwrap_err();
    assert!(error.to_string().starts_with("LAZARET_HOST_WORKING_RUNS: "), "{error}");
}

#[test]
fn providers_come_from_the_environment_when_the_file_names_none() {
    let real =
        install("", &[("ANTHROPIC_API_KEY", "sk-1"), ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/")]).unwrap();
    let provider = &real.providers["anthropic"];
    assert_eq!(
        (real.model.provider.as_str(), provider.base_url.as_str()),
        ("anthropic", "http://127.0.0.1:9")
    );
    assert!(!format!("{real:?}").contains("sk-1"), "a key is never printed");
    let open = install("", &[("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")]).unwrap();
    assert_eq!(open.model.provider, "openai");
    let keyless = install("[providers.anthropic]\nkind = \"anthropic\"", &[]).unwrap_err();
    assert_eq!(keyless.code(), "config.secret");
    assert!(keyless.to_string().contains("ANTHROPIC_API_KEY"), "{keyless}");
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lazaret.toml"), "[channels.telegram]\ntoken_file = \"token\"").unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "123:abc\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let load = || Install::load(Root::new(dir.path()).unwrap(), &BTreeMap::new());
    let error = load().unwrap_err();
    assert!(error.to_string().contains("0644") && error.to_string().contains("chmod 600"), "{error}");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load().unwrap().channel_secrets[&TELEGRAM].expose(), "123:abc");
}

#[test]
fn a_group_narrows_and_cannot_widen() {
    let dir = tempfile::tempdir().unwrap();
    let family: GroupName = "family".parse().unwrap();
    let root = Root::new(dir.path()).unwrap();
    std::fs::create_dir_all(root.group_file(&family).parent().unwrap()).unwrap();
    let load = |text: &str| {
        std::fs::write(root.group_file(&family), text).unwrap();
        Install::load(root.clone(), &BTreeMap::new()).unwrap().group(&family)
    };
    let group =
        load("image = \"python:3.12\"\ntrigger = [\"laz\"]\npriority = \"low\"\n[limits]\nmemory_mib = 256")
            .unwrap();
    assert_eq!((group.image.as_str(), group.limits.memory()), ("python:3.12", 256 << 20));
    let error = load("[limits]\nmemory_mib = 4096").unwrap_err().to_string();
    assert!(
        error.contains("group.toml:2:14: limits.memory_mib = 4096 is above the install's 1024"),
        "{error}"
    );
    let error = load("limits.pids = 0").unwrap_err().to_string();
    assert!(
        error.contains(
            "group.toml:1:15: limits.pids = 0 is not allowed; it is a whole number from 16 to 4194304"
        ),
        "{error}"
    );
    let error = load("runtime = \"kata\"").unwrap_err().to_string();
    assert!(error.contains("group.toml:1:11: runtime = \"kata\" is not one of"), "{error}");
    assert_eq!(load("runner = \"/opt/agent\"").unwrap().runner.as_deref(), Some("/opt/agent"));
    let error = load("runner = \"/workspace/agent\"").unwrap_err().to_string();
    assert!(error.contains("group.toml:1:10: runner = \"/workspace/agent\" lies at /workspace"), "{error}");
    assert!(load("[limits]\ndisk_images = true").unwrap().limits.disk_images);
    std::fs::write(root.install_file(), "[limits]\ndisk_images = true").unwrap();
    assert!(load("").unwrap().limits.disk_images);
    let error = load("[limits]\ndisk_images = false").unwrap_err();
    assert!(error.to_string().contains("takes away what the install has set for all"), "{error}");
    std::fs::remove_file(root.install_file()).unwrap();
    let error = load("network = \"open\"").unwrap_err();
    assert_eq!(error.code(), "config.unknown_key");
    let error = load("[model]\nprovider = \"elsewhere\"").unwrap_err().to_string();
    assert!(error.contains("group.toml:2:12: ") && error.contains("demo"), "{error}");
    let model = load("[model]\nmax_tokens = 5").unwrap().model;
    assert_eq!(
        (model.provider.as_str(), model.model.as_str(), model.max_tokens, model.window),
        ("demo", "demo", 5, 200_000)
    );
}

#[test]
fn the_owner_chooses_what_happens_to_a_part_in_doubt_and_a_group_for_itself() {
    let text = "[channels.telegram]\ndelivery = \"hold\"";
    let by_file = install(text, &[]).unwrap();
    assert_eq!(by_file.delivery(TELEGRAM), Delivery::Hold);
    let by_env = install(text, &[("LAZARET_CHANNELS_TELEGRAM_DELIVERY", "edit")]).unwrap();
    assert_eq!(by_env.delivery(TELEGRAM), Delivery::Edit);
    let family: GroupName = "family".parse().unwrap();
    let group = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        by_file.parse_group(&family, file.path()).unwrap().delivery
    };
    assert_eq!((group(""), group("delivery = \"resend\"")), (None, Some(Delivery::Resend)));
    assert!(complaint("[channels.telegram]\ndelivery = \"twice\"").contains("`resend`, `edit`, `hold`"));
}

#[test]
fn b9_mounts_are_the_installs_to_allow_and_a_refusal_names_the_line_and_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let main = || {
        let install = Install::load(Root::new(dir.path()).unwrap(), &BTreeMap::new())?;
        install.group(&GroupName::main()).map(|group| group.mounts)
    };
    let group = "groups/main/group.toml";
    write(
        group,
        "priority = \"high\"\nmounts = [\n  { source = \"/srv/photos/2024\", target = \"/mnt/p\" },\n]\n",
    );
    let refused = main().unwrap_err();
    assert_eq!(refused.code(), "mount.not_allowed");
    let told = refused.to_string();
    assert!(
        told.contains("group.toml:3:3: /srv/photos/2024 lies below nothing") && told.contains("add { path ="),
        "{told}"
    );

    write("lazaret.toml", "[mounts]\nallow = [{ path = \"/srv/photos\" }]\n");
    let mounts = main().unwrap();
    assert_eq!((mounts[0].target.as_str(), mounts[0].writable), ("/mnt/p", false));

    write(group, "[[mounts]]\nsource = \"/srv/photos\"\ntarget = \"/mnt/p\"\nwritable = true\n");
    let refused = main().unwrap_err();
    assert_eq!(refused.code(), "mount.read_only");
    assert!(refused.to_string().contains("group.toml:1:1: "), "{refused}");

    write("lazaret.toml", "[mounts]\nallow = [\n  { path = \"/srv/photos\" },\n  { path = \"/etc\" },\n]\n");
    let refused = main().unwrap_err();
    assert_eq!(refused.code(), "mount.secret");
    assert!(refused.to_string().contains("lazaret.toml:4:3: /etc"), "{refused}");
    let own = format!("[mounts]\nallow = [{{ path = {:?} }}]\n", dir.path());
    write("lazaret.toml", &own);
    assert!(main().unwrap_err().to_string().contains("this install"));
}

/// The change time of a file cannot be set back, so the test waits.
fn wait_until_settled(root: &Root, group: &GroupName) {
    let version = crate::host_files::version(&root.group_file(group)).unwrap().unwrap();
    while !version.is_settled(std::time::SystemTime::now()) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_group_file_is_parsed_when_it_changes_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path()).unwrap();
    let family: GroupName = "family".parse().unwrap();
    let path = root.group_file(&family);
    let install = Install::load(root.clone(), &BTreeMap::new()).unwrap();
    let persona = || install.group(&family).map(|group| group.persona).map_err(|e| e.code());
    assert_eq!(persona(), Err("group.gone"), "no folder yet");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(persona().unwrap(), "Laz", "no file yet");
    // Many edits of the same length within one step of the clock: each is seen by the call after it.
    for n in 0..2_000 {
        let name = format!("A{:04}", n % 1000);
        std::fs::write(&path, format!("persona = \"{name}\"")).unwrap();
        assert_eq!(persona().unwrap(), name);
    }
    wait_until_settled(&root, &family);
    assert_eq!(persona().unwrap(), "A0999");
    let times_parsed = std::cell::Cell::new(0);
    let ask = || {
        let version = crate::host_files::version(&path).unwrap();
        install.groups.get(&family, version, || {
            times_parsed.set(times_parsed.get() + 1);
            install.parse_group(&family, &path)
        })
    };
    (0..100).for_each(|_| drop(ask().unwrap()));
    assert_eq!(times_parsed.get(), 0, "the file was remembered by the call before");

    // A file of the same size and modification time takes its place in one step.
    let staged = path.with_extension("new");
    std::fs::write(&staged, "persona = \"B0999\"").unwrap();
    let old = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&staged).unwrap().set_modified(old).unwrap();
    std::fs::rename(&staged, &path).unwrap();
    assert_eq!(ask().unwrap().persona, "B0999");

    std::fs::write(&path, "persona = ").unwrap();
    wait_until_settled(&root, &family);
    assert_eq!(
        (persona(), persona()),
        (Err("config.value"), Err("config.value")),
        "an error is remembered too"
    );
    std::fs::remove_file(&path).unwrap();
    assert_eq!(persona().unwrap(), "Laz");
}

#[test]
fn an_address_of_an_unknown_channel_is_refused_with_its_place() {
    let channels = crate::channels::ChannelsFile::default();
    let names: Vec<String> = channels.all().map(|channel| channel.name().to_string()).collect();
    assert_eq!(
        complaint("persona = \"x\"\nowners = [\"irc:ann\"]"),
        format!(":2:11: there is no channel \"irc\"; there are: {}", names.join(", "))
    );
    assert!(
        complaint("[channels.telegran]\ndelivery = \"hold\"")
            .contains(":1:11: there is no setting `telegran` here; did you mean `telegram`?")
    );
}

#[test]
fn a_file_with_25_mistakes_gives_25_lines_in_one_call() {
    let install = r#"persona = ""
zone = "Europe/Atlantis"
owners = ["12345", "irc:ann"]
image = "a b"
workng_runs = 4
night_hour = 27

[model]
max_tokens = 200_001
provider = "nobody"

[providers.mine]
kind = "openai"
base_url = "htp:/x"

[channels.telegram]
base_url = "https://bad host"
chat_burst = "3"

[host]
working_runs = 0
night_hour = 27
turn = "5m"

[engine]
accept = ["everything"]

[limits]
turn = "0s"
memory_mib = 5
pids = 1
run = "soon"
disk_images = 1

[mounts]
allow = [{ path = "/srv/photos" }, { path = "/etc" }, { writable = true }]

[tools]
default = "maybe"
rules = [
  { tool = "run_comand", verdict = "deny" },
  { tool = "read_file", command = "x", verdict = "allow" },
]
"#;
    let told = mistakes(install, "");
    let places: Vec<&str> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let at = |line: usize, column: usize| format!("lazaret.toml:{line}:{column}");
    let expected = [
        at(1, 11),
        at(2, 8),
        at(3, 11),
        at(3, 20),
        at(4, 9),
        at(5, 1),
        at(6, 1),
        at(9, 14),
        at(10, 12),
        at(14, 12),
        at(17, 12),
        at(18, 14),
        at(21, 16),
        at(22, 14),
        at(23, 1),
        at(26, 11),
        at(29, 8),
        at(30, 14),
        at(31, 8),
        at(32, 7),
        at(33, 15),
        at(36, 36),
        at(36, 55),
        at(39, 11),
        at(41, 12),
    ];
    assert_eq!(places[..25], expected, "{}", told.join("\n"));
    assert_eq!(places[25..], [at(42, 35)], "and one more");
    for rust in ["u32", "usize", "u64", "struct", "expected", "enum", "variant", "Some("] {
        assert!(
            !told.iter().any(|line| line.contains(rust)),
            "{rust} is a word of Rust:\n{}",
            told.join("\n")
        );
    }
}

#[test]
fn a_key_under_the_wrong_table_is_told_where_it_belongs() {
    for (install, group, told) in [
        ("[host]\nturn = 5", "", "`turn` belongs under [limits]"),
        (
            "[limits]\npersona = \"Laz\"",
            "",
            "`persona` belongs at the top of the file, above the first [table]",
        ),
        ("letters_mib = 5", "", "`letters_mib` belongs under [keep] or under [limits]"),
        ("[telegram]\nenabled = false", "", "`telegram` belongs under [channels]"),
        ("chats = []", "", "`chats` belongs into groups/NAME/group.toml"),
        ("", "owners = []", "`owners` belongs into lazaret.toml"),
        ("idel_window = 5", "", "did you mean `limits.idle_window`?"),
    ] {
        let lines = mistakes(install, group);
        assert!(lines.len() == 1 && lines[0].ends_with(told), "{lines:?}");
    }
}

#[test]
fn a_line_that_is_no_toml_is_one_mistake_and_the_others_are_told_too() {
    let told = mistakes(
        "persona = \n[host]\nworking_runs = 0\n[limits\nturn = \"0s\"\n",
        "trigger = ]\npriority = 7",
    );
    let lines: Vec<&str> = told.iter().filter_map(|line| line.split(':').nth(1)).collect();
    assert!(lines.contains(&"1") && lines.contains(&"3") && lines.contains(&"4"), "{told:?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("lazaret.toml:1:")).count(), 1, "{told:?}");
    assert_eq!(
        told.iter().filter(|line| line.contains("group.toml:2:12: priority = 7")).count(),
        1,
        "{told:?}"
    );
}

#[test]
fn values_that_cannot_work_are_refused() {
    for bad in [
        "model.window = 100\nmodel.max_tokens = 100",
        "channels.telegram.base_url = \"http://\"",
        "channels.telegram.base_url = \"https://me:pw@api.example\"",
        "channels.telegram.room_per_minute = 0",
        "channels.telegram.delivery = \"twice\"",
        "limits.turn = 9223372036854775807",
        "limits.turn = \"1000000 years\"",
        "limits.turn = -5",
        "limits.turn = 1.5",
        "limits.pids = 99999999999",
        "limits = 5",
        "host.reply_lifetime = 0",
        "keep.copies = 0",
        "image = \"python:3:4\"",
        "tools.rules = [{ tool = \"read_file\" }]",
        "tools.rules = [{ tool = \"run_command\", command = \"\", verdict = \"deny\" }]",
        "owners = \"telegram:5\"",
        "persona = 1979-05-27",
    ] {
        assert_eq!(mistakes(bad, "").len(), 1, "{bad}: {:?}", mistakes(bad, ""));
    }
    for bad in [
        "trigger = []",
        "trigger = [\"laz\", \" \"]",
        "zone = \"Mars\"",
        "image = \"Python 3\"",
        "model.max_tokens = 300000",
        "mounts = [{ source = \"/srv\", target = \"/srv\" }]",
        "chats = [\"telegram:1\", \"telegram:1\"]",
    ] {
        assert_eq!(mistakes("", bad).len(), 1, "{bad}: {:?}", mistakes("", bad));
    }
    assert_eq!(mistakes("[providers.x]\nkind = \"tour\"", "limits.memory_mib = 64"), [""; 0]);
}

#[test]
fn a_heartbeat_that_cannot_work_is_refused_with_its_place() {
    let complaints = mistakes(
        "",
        "[[heartbeat]]\nname = \"look\"\nschedule = \"every 30m\"\nprompt = \"What is due?\"\n\
         [[heartbeat]]\nname = \"look\"\nschedule = \"daily 08:00\"\nprompt = \"x\"\n\
         [[heartbeat]]\nname = \"once\"\nschedule = \"tomorrow 9:00\"\nprompt = \"x\"\n\
         [[heartbeat]]\nname = \"both\"\nschedule = \"hourly\"\nprompt = \"x\"\nprompt_file = \"x.md\"\n\
         [[heartbeat]]\nname = \"none\"\nschedule = \"hourly\"\n\
         [[heartbeat]]\nname = \"gone\"\nschedule = \"hourly\"\nprompt_file = \"gone.md\"\n\
         [[heartbeat]]\nname = \"out\"\nschedule = \"hourly\"\nprompt_file = \"../main/CLAUDE.md\"\n\
         [[heartbeat]]\nname = \"odd\"\nschedule = \"*/0 * * * *\"\nprompt = \"x\"\nprompts = \"x\"\n",
    );
    let file = "groups/main/group.toml:";
    for (complaint, (at, words)) in complaints.iter().zip([
        ("6:8", "there is a heartbeat named \"look\" above"),
        ("11:12", "comes again and again"),
        ("17:15", "has both"),
        ("18:1", "needs `prompt` or `prompt_file`"),
        ("24:15", "gone.md cannot be read: "),
        ("28:15", "is not in the group's folder; write the name of a file beside group.toml"),
        ("31:12", "a step of 0 never moves on"),
        ("33:1", "there is no setting `prompts` here"),
    ]) {
        assert!(complaint.starts_with(&format!("{file}{at}: ")) && complaint.contains(words), "{complaint}");
    }
    assert_eq!(complaints.len(), 8, "{complaints:#?}");
}

#[test]
fn a_command_needs_no_key_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path()).unwrap();
    let text = "[providers.x]\nkind = \"anthropic\"\n[channels.telegram]\ntoken_file = \"token\"";
    std::fs::write(root.install_file(), text).unwrap();
    let install = Install::load_for_command(root.clone(), &BTreeMap::new()).unwrap();
    let missing: Vec<String> = install.missing_secrets.iter().map(Mistake::to_string).collect();
    assert!(
        missing[0].contains("providers.x: there is no key") && missing[1].contains("token: the secret"),
        "{missing:?}"
    );
    let error = Install::load(root, &BTreeMap::new()).unwrap_err();
    assert_eq!((error.mistakes().len(), error.code()), (2, "config.secret"));
}
