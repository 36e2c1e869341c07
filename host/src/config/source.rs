//! One settings file as TOML with the place of every key and value, and the mistakes found in it so far.
//!
//! [`Source::read`] finds every mistake in one pass: it leaves out what cannot be used and goes on with the rest.
//! Names, types and allowed values come from the definitions (`setting_list`). What only the type itself knows, such as
//! the names of time zones, comes from its parser.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use toml::de::{DeArray, DeString, DeTable, DeValue, Deserializer};
use toml::{Spanned, Table};

use super::mistake::Mistake;
use super::nearest;
use super::schema::{GroupFile, InstallFile};
use super::setting_list::{self, Allowed, Definitions, SettingsFile, table_of};

/// A settings file, or an environment variable as a file of one setting.
pub(super) struct Source<'a> {
    name: String,
    text: &'a str,
    /// The variable's text, not a file's: it has no lines.
    is_variable: bool,
    /// What can be used.
    table: DeTable<'a>,
    /// The variables that replaced settings of the file, by setting.
    pub(super) overrides: BTreeMap<String, String>,
    pub(super) mistakes: Vec<Mistake>,
    /// Lines that are no TOML. What a recovering parser makes of them is not a second mistake.
    broken_lines: Vec<usize>,
}

impl<'a> Source<'a> {
    /// Reads a file's text as `T`. Settings with mistakes have their defaults.
    pub(super) fn read<T: SettingsFile>(path: &Path, text: &'a str) -> (T, Self) {
        Self::new(path.display().to_string(), text, false)
    }

    /// Reads one environment variable, written as a line of the file: `limits.turn = "5m"`.
    pub(super) fn read_variable<T: SettingsFile>(name: &str, line: &'a str) -> (T, Self) {
        Self::new(name.to_owned(), line, true)
    }

    fn new<T: SettingsFile>(name: String, text: &'a str, is_variable: bool) -> (T, Self) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut source = Self {
            name,
            text,
            is_variable,
            table: DeTable::new(),
            overrides: BTreeMap::new(),
            mistakes: Vec::new(),
            broken_lines: Vec::new(),
        };
        for error in errors {
            let at = error.span().map_or(text.len(), |span| span.start);
            let line = source.line_and_column(at).0;
            if !source.broken_lines.contains(&line) {
                source.refuse_at(at, first_line(error.message()));
                source.broken_lines.push(line);
            }
        }
        let mut table = table.into_inner();
        let all = T::definitions();
        let mut walk = Walk { all, path: Vec::new(), source: &mut source };
        walk.table(&all.schema, &mut table, 0);
        source.table = table;
        let typed = source.typed();
        (typed, source)
    }

    /// Reads the rest as `T`. An error of a type's own parser names its value: that is left out, and the rest is read
    /// again.
    fn typed<T: SettingsFile>(&mut self) -> T {
        loop {
            let error = match self.rest() {
                Ok(read) => return read,
                Err(e) => e,
            };
            let at = error.span().map_or(0, |span| span.start);
            if !self.refuse_members::<T>(at) {
                self.refuse_at(at, first_line(error.message()));
                if !remove_at(&mut self.table, at) {
                    return T::default();
                }
            }
        }
    }

    /// Reads what is left of the file.
    fn rest<T: DeserializeOwned>(&self) -> Result<T, toml::de::Error> {
        T::deserialize(Deserializer::from(Spanned::new(0..self.text.len(), self.table.clone())))
    }

    /// An error in a list names the list and not its member: reads the file with one member at a time, and leaves out
    /// those that fail. Returns whether there was one.
    fn refuse_members<T: SettingsFile>(&mut self, at: usize) -> bool {
        let Some(list) = list_at(&mut self.table, at) else { return false };
        let members = taken(list);
        let (all, mut good) = (members.len(), Vec::new());
        for member in members {
            list_at(&mut self.table, at).into_iter().for_each(|list| list.push(member.clone()));
            match self.rest::<T>() {
                Ok(_) => good.push(member),
                Err(e) => self.refuse_at(member.span().start, first_line(e.message())),
            }
            list_at(&mut self.table, at).into_iter().for_each(|list| *list = DeArray::default());
        }
        let found = good.len() < all;
        list_at(&mut self.table, at)
            .into_iter()
            .for_each(|list| *list = std::mem::take(&mut good).into_iter().collect());
        found
    }

    /// The file's path.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The settings that can be used.
    pub(super) fn usable(&self) -> Table {
        self.rest().unwrap_or_default()
    }

    /// Whether the file has these keys.
    pub(super) fn has(&self, keys: &[&str]) -> bool {
        self.value_of(keys).is_some()
    }

    /// Notes a mistake in the value of these keys; a number is the index of a list's member.
    pub(super) fn refuse(&mut self, keys: &[&str], mistake: impl Into<Mistake>) {
        let mistake = mistake.into();
        let mut tables = (1..=keys.len()).filter_map(|n| Some(keys.get(..n)?.join(".")));
        if let Some(variable) = tables.find_map(|name| self.overrides.get(&name)) {
            self.mistakes.push(Mistake { file: variable.clone(), ..mistake });
        } else if let Some(start) = self.value_of(keys).map(|value| value.span().start) {
            self.refuse_at(start, mistake);
        } else {
            let file = format!("{}: {}", self.name, keys.join("."));
            self.mistakes.push(Mistake { file, ..mistake });
        }
    }

    fn value_of(&self, keys: &[&str]) -> Option<&Spanned<DeValue<'a>>> {
        let (first, rest) = keys.split_first()?;
        let (_, value) = self.table.iter().find(|(key, _)| key.get_ref() == first)?;
        rest.iter().try_fold(value, |value, key| inside(value, key))
    }

    fn refuse_at(&mut self, at: usize, mistake: impl Into<Mistake>) {
        let at = (!self.is_variable).then(|| self.line_and_column(at));
        self.mistakes.push(Mistake { file: self.name.clone(), at, ..mistake.into() });
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// The mistakes in the order of the file.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let broken = |m: &Mistake| {
            m.file == self.name && m.at.is_some_and(|(line, _)| self.broken_lines.contains(&line))
        };
        let syntax = self.broken_lines.len();
        let mistakes = self.mistakes.into_iter().enumerate();
        let mut mistakes: Vec<Mistake> =
            mistakes.filter(|(n, m)| *n < syntax || !broken(m)).map(|(_, m)| m).collect();
        mistakes.sort_by_key(|mistake| mistake.at.unwrap_or((usize::MAX, 0)));
        mistakes
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

fn inside<'v, 'a>(value: &'v Spanned<DeValue<'a>>, key: &str) -> Option<&'v Spanned<DeValue<'a>>> {
    match value.get_ref() {
        DeValue::Table(table) => table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value),
        DeValue::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Removes the smallest entry whose value covers this place.
fn remove_at(table: &mut DeTable<'_>, at: usize) -> bool {
    let mut removed = false;
    keep_entries(table, |_, value| removed || !is_to_go(value, at, &mut removed));
    removed
}

/// Returns whether the value itself is the smallest one there.
fn is_to_go(value: &mut Spanned<DeValue<'_>>, at: usize, removed: &mut bool) -> bool {
    let covers = (value.span().start..=value.span().end).contains(&at);
    match value.get_mut() {
        DeValue::Table(table) => *removed = remove_at(table, at),
        DeValue::Array(list) => keep_members(list, |one| *removed || !is_to_go(one, at, removed)),
        _ => {}
    }
    let go = covers && !*removed;
    *removed |= go;
    go
}

/// The list that begins here.
fn list_at<'t, 'a>(table: &'t mut DeTable<'a>, at: usize) -> Option<&'t mut DeArray<'a>> {
    table.into_iter().find_map(|(_, value)| list_in(value, at))
}

fn list_in<'t, 'a>(value: &'t mut Spanned<DeValue<'a>>, at: usize) -> Option<&'t mut DeArray<'a>> {
    let here = value.span().start == at;
    match value.get_mut() {
        DeValue::Table(table) => list_at(table, at),
        DeValue::Array(list) => {
            if here {
                Some(list)
            } else {
                list.iter_mut().find_map(|member| list_in(member, at))
            }
        }
        _ => None,
    }
}

fn keep_entries<'a>(
    table: &mut DeTable<'a>,
    mut keep: impl FnMut(&Spanned<DeString<'a>>, &mut Spanned<DeValue<'a>>) -> bool,
) {
    let entries = std::mem::take(table).into_iter();
    *table = entries.filter_map(|(key, mut value)| keep(&key, &mut value).then_some((key, value))).collect();
}

fn taken<'a>(list: &mut DeArray<'a>) -> DeArray<'a> {
    std::mem::replace(list, std::iter::empty().collect())
}

fn keep_members<'a>(list: &mut DeArray<'a>, mut keep: impl FnMut(&mut Spanned<DeValue<'a>>) -> bool) {
    let members = taken(list).into_iter();
    *list = members.filter_map(|mut member| keep(&mut member).then_some(member)).collect();
}

/// Compares a file with the definitions, table by table.
struct Walk<'w, 'a> {
    all: &'w Definitions,
    /// The keys on the way here.
    path: Vec<String>,
    source: &'w mut Source<'a>,
}

impl Walk<'_, '_> {
    /// Leaves out of the table what cannot be used. Returns whether the table has all that it must have.
    fn table(&mut self, schema: &Json, table: &mut DeTable<'_>, start: usize) -> bool {
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for key in required.filter_map(Json::as_str) {
            if !table.iter().any(|(name, _)| name.get_ref() == key) {
                self.source.refuse_at(start, format!("{} needs `{key}`", self.here()));
                return false;
            }
        }
        keep_entries(table, |key, value| {
            let name = key.get_ref().as_ref();
            let own = schema.get("properties").and_then(|all| all.get(name));
            let Some(schema) = own.or(schema.get("additionalProperties").filter(|any| any.is_object()))
            else {
                self.unknown(name, key.span().start);
                return false;
            };
            self.path.push(name.to_owned());
            let keep = self.value(schema, value);
            self.path.pop();
            keep
        });
        true
    }

    /// Returns whether the value can be used.
    fn value(&mut self, property: &Json, value: &mut Spanned<DeValue<'_>>) -> bool {
        let span = value.span();
        let schema = setting_list::resolved(&self.all.schema, property);
        let allowed = Allowed::of(property, schema);
        let good = match (value.get_mut(), &allowed) {
            (DeValue::Table(table), Allowed::Table) => return self.table(schema, table, span.start),
            (DeValue::Array(list), Allowed::List(item)) => {
                let mut n = 0_usize;
                keep_members(list, |member| {
                    self.path.push(n.to_string());
                    n += 1;
                    let keep = self.value(item, member);
                    self.path.pop();
                    keep
                });
                true
            }
            (DeValue::Integer(number), _) => {
                i64::from_str_radix(number.as_str(), number.radix()).is_ok_and(|n| allowed.takes_number(n))
            }
            (DeValue::String(text), _) => allowed.takes_text(text),
            (DeValue::Boolean(_), _) => matches!(allowed, Allowed::Boolean | Allowed::Unknown),
            _ => matches!(allowed, Allowed::Unknown),
        };
        if !good {
            let written = self.source.text.get(span.clone()).map(first_line).unwrap_or_default();
            let written: String = written.chars().take(60).collect();
            let what = format!("{} = {written} is not allowed; it is {}", self.here(), allowed.in_words());
            self.source.refuse_at(span.start, what);
        }
        good
    }

    /// `tools.rules[2].tool`
    fn here(&self) -> String {
        let mut shown = String::new();
        for key in &self.path {
            match key.parse::<usize>() {
                Ok(n) => shown += &format!("[{n}]"),
                Err(_) if shown.is_empty() => shown += key,
                Err(_) => shown += &format!(".{key}"),
            }
        }
        shown
    }

    /// Notes a key that is no setting here, and where it belongs: in another table, in another file, or under another
    /// name.
    fn unknown(&mut self, key: &str, at: usize) {
        let own = &self.all.names;
        let is_key = |path: &&Vec<String>| path.last().is_some_and(|last| last == key);
        let tables: Vec<String> = own.iter().filter(is_key).map(|path| table_of(path)).collect();
        let is_here = |path: &&Vec<String>| path.split_last().is_some_and(|(_, tables)| *tables == self.path);
        let here = own.iter().filter(is_here).filter_map(|path| path.last()).map(String::as_str);
        let files = [InstallFile::definitions(), GroupFile::definitions()];
        let other = files
            .into_iter()
            .find(|file| file.file != self.all.file && file.names.iter().any(|p| is_key(&p)));
        let is_near =
            |path: &&Vec<String>| nearest(key, path.last().map(String::as_str).into_iter()).is_some();
        let hint = if !tables.is_empty() {
            format!("`{key}` belongs {}", tables.join(" or "))
        } else if let Some(other) = other {
            format!("`{key}` belongs into {}", other.file)
        } else if let Some(near) = nearest(key, here) {
            format!("did you mean `{near}`?")
        } else if let Some(near) = own.iter().find(is_near) {
            format!("did you mean `{}`?", near.join("."))
        } else {
            "`lazaret config show` lists every setting".to_owned()
        };
        let mistake = Mistake::from(format!("there is no setting `{key}` here"));
        self.source.refuse_at(at, mistake.hint(hint).coded("config.unknown_key"));
    }
}
