//! Decides what the words after `/model` mean.

use crate::domain::group_settings::ModelChoice;

/// The word for the model that the group's file names.
pub const OF_FILE: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelOrder<'a> {
    /// Show what can be chosen.
    Show,
    /// Go back to the file's.
    OfFile,
    Choose(&'a ModelChoice),
    /// The settings know no such model, or several.
    Unknown,
}

/// Reads the order. `models` can be chosen.
pub fn model_order<'a>(words: &str, models: &'a [ModelChoice]) -> ModelOrder<'a> {
    match words {
        "" => ModelOrder::Show,
        word if word.eq_ignore_ascii_case(OF_FILE) => ModelOrder::OfFile,
        word => {
            let is_meant = |m: &&ModelChoice| {
                names(m, models).eq_ignore_ascii_case(word) || whole(m).eq_ignore_ascii_case(word)
            };
            models.iter().find(is_meant).map_or(ModelOrder::Unknown, ModelOrder::Choose)
        }
    }
}

/// What people write to choose the model: its name, with the provider if another one has a model of that name.
pub fn names(model: &ModelChoice, models: &[ModelChoice]) -> String {
    let alike = models.iter().filter(|m| m.model.eq_ignore_ascii_case(&model.model)).count();
    if alike > 1 { whole(model) } else { model.model.clone() }
}

fn whole(model: &ModelChoice) -> String {
    format!("{}/{}", model.provider, model.model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_enough_unless_two_providers_have_it() {
        let model = |provider: &str, model: &str| ModelChoice {
            provider: provider.into(),
            model: model.into(),
            max_tokens: 1,
            window: 2,
            images: true,
        };
        let models = [model("anthropic", "fast"), model("local", "meta/llama"), model("other", "Fast")];
        assert_eq!(model_order("", &models), ModelOrder::Show);
        assert_eq!(model_order("Default", &models), ModelOrder::OfFile);
        assert_eq!(model_order("META/llama", &models), ModelOrder::Choose(&models[1]));
        assert_eq!(model_order("local/meta/llama", &models), ModelOrder::Choose(&models[1]));
        assert_eq!(model_order("fast", &models), ModelOrder::Unknown, "two have it");
        assert_eq!(model_order("other/fast", &models), ModelOrder::Choose(&models[2]));
        assert_eq!(model_order("slow", &models), ModelOrder::Unknown);
        let shown: Vec<_> = models.iter().map(|m| names(m, &models)).collect();
        assert_eq!(shown, ["anthropic/fast", "meta/llama", "other/Fast"]);
    }
}
