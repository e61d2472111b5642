//! Partner event sources and global endpoints. Partners here are webhooks that files declare, so that there is nothing
//! to create, and one process is no pair of regions: what asks for either is told so, and lists are empty.

use super::{ApiError, Call, Done, Outcome};
use serde_json::{Value, json};

/// Answers the actions of partners and endpoints.
pub(super) fn act(action: &str, call: &Call<'_>) -> Outcome {
    let name = call.text("Name").or_else(|| call.text("EventSourceName")).unwrap_or_default();
    let no_source = || Err(ApiError::missing(format!("Event source {name} does not exist.")));
    let off = |what: &str| Err(ApiError::new("OperationDisabledException", what));
    let empty = |member: &str| Ok(Done::answer(json!({ member: [] })));
    match action {
        "ListEventSources" => empty("EventSources"),
        "ListPartnerEventSources" => empty("PartnerEventSources"),
        "ListEndpoints" => empty("Endpoints"),
        "DescribeEventSource"
        | "DescribePartnerEventSource"
        | "ActivateEventSource"
        | "DeactivateEventSource"
        | "ListPartnerEventSourceAccounts" => no_source(),
        "DeletePartnerEventSource" => Ok(Done::default()),
        "CreatePartnerEventSource" => off(
            "Partner event sources are webhooks here: declare a source with `webhook` and a bus `aws.partner/...` in a file.",
        ),
        "PutPartnerEvents" => {
            let entries = call.members.get("Entries").and_then(Value::as_array).map_or(0, Vec::len);
            let refused =
                json!({ "ErrorCode": "ResourceNotFoundException", "ErrorMessage": "Event source does not exist." });
            Ok(Done::answer(json!({ "FailedEntryCount": entries, "Entries": vec![refused; entries] })))
        }
        "DescribeEndpoint" | "DeleteEndpoint" | "UpdateEndpoint" => {
            Err(ApiError::missing(format!("Endpoint {name} does not exist.")))
        }
        "CreateEndpoint" => {
            let message = "Global endpoints join two regions of the service; send to the bus of one region.";
            Err(ApiError::invalid(message))
        }
        other => Err(ApiError::new("UnknownOperationException", format!("{other} is not an action of this endpoint"))),
    }
}
