//! JSON as text that arrives as it was sent. Names that people choose are in it, and two services take some characters for
//! more than they are.

use serde::Serialize;

/// `value` as JSON of which SQS takes every character, and in which EventBridge Scheduler finds no placeholder.
///
/// SQS refuses a message with U+FFFE or U+FFFF in it
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>). Scheduler puts values in
/// the place of words such as `<aws.scheduler.execution-id>`
/// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html>).
pub(crate) fn text(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    // None of them is in JSON but within a string.
    Ok(text.replace('<', "\\u003c").replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_services_would_take_for_more_is_written_out_and_reads_back() {
        let value = json!({ "<aws.scheduler.attempt-number>": "a\u{fffe}b\u{ffff}\u{fffd}\"\\u003c<\u{1}" });
        let text = super::text(&value).unwrap();
        assert!(!text.contains(['<', '\u{fffe}', '\u{ffff}', '\u{1}']) && text.contains('\u{fffd}'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
