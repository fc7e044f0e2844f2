//! JSON text that SQS and EventBridge Scheduler pass on unchanged. It holds names that people choose, and these two services
//! give some characters a special meaning.

use serde::Serialize;

/// `value` as JSON that SQS accepts, and in which EventBridge Scheduler finds no placeholder.
///
/// SQS refuses a message with U+FFFE or U+FFFF in it
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>). Scheduler replaces
/// placeholders such as `<aws.scheduler.execution-id>`
/// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html>).
pub(crate) fn text(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    // In JSON these characters occur only within strings.
    Ok(text.replace('<', "\\u003c").replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn special_characters_are_escaped() {
        let value = json!({ "<aws.scheduler.attempt-number>": "a\u{fffe}b\u{ffff}\u{fffd}\"\\u003c<\u{1}" });
        let text = super::text(&value).unwrap();
        assert!(!text.contains(['<', '\u{fffe}', '\u{ffff}', '\u{1}']) && text.contains('\u{fffd}'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
