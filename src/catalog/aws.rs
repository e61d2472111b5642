//! Resources of AWS, or of whatever speaks its APIs: which an ARN names, and where its requests go.
//!
//! In: an ARN and a target's parameters. Out: an HTTP target with a [`Call`] that shapes its requests. Promises: pure.
//! Leaves to others: bodies, signatures and answers (`deliver`).

use super::{HttpAuth, HttpTarget, Secret, is_account, is_region};
use crate::transform::JsonPath;
use std::collections::BTreeMap;
use std::time::Duration;

/// For a whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way at once, for each target.
const IN_FLIGHT: u32 = 64;

/// How services of AWS are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who we are.
    pub keys: Keys,
    /// The address for all services that have none of their own; AWS's own when absent.
    pub endpoint: Option<String>,
    /// Addresses by service, as in `sqs`.
    pub endpoints: BTreeMap<String, String>,
}

/// An access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
    /// The token of a session.
    pub token: Option<Secret>,
}

/// What a request is signed with (Signature Version 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigV4 {
    /// Who we are.
    pub keys: Keys,
    /// As in `us-east-1`.
    pub region: String,
    /// As in `sqs`.
    pub service: &'static str,
}

/// A resource, and the shape of the requests to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The resource.
    pub arn: String,
    /// What it is.
    pub resource: Resource,
}

/// The kinds of resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// A queue of SQS, by its address; its messages' group where it is FIFO.
    Queue(String, Option<String>),
    /// A topic of SNS; its messages' group where it is FIFO.
    Topic(Option<String>),
    /// A stream of Kinesis by name, and where the partition key stands in an event.
    Stream(String, Option<JsonPath>),
    /// A delivery stream of Firehose, by name.
    DeliveryStream(String),
    /// A group of CloudWatch Logs, by name.
    LogGroup(String),
    /// A state machine of Step Functions.
    StateMachine,
    /// A function of Lambda.
    Function,
}

impl Call {
    /// Where what a request takes from the event beside the payload stands in it.
    pub fn key(&self) -> Option<&JsonPath> {
        match &self.resource {
            Resource::Stream(_, path) => path.as_ref(),
            _ => None,
        }
    }
}

/// What targets say of their requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// `SqsParameters.MessageGroupId`
    pub group: Option<String>,
    /// `KinesisParameters.PartitionKeyPath`
    pub key: Option<JsonPath>,
}

impl Access {
    /// The target that an ARN names; `None` where it is of a service that nothing is sent to.
    ///
    /// # Errors
    /// The ARN is none of a resource that takes events.
    pub fn target(&self, arn: &str, parameters: Parameters) -> Option<Result<HttpTarget, String>> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, service, region, account, resource] = parts[..] else { return None };
        let service = SERVICES.into_iter().find(|known| *known == service)?;
        let url = self.url(partition, service, region);
        let found = found(service, (account, resource), &url, parameters);
        // They become parts of addresses, which nobody may lead elsewhere.
        let resource = found.filter(|_| is_region(region) && is_account(account));
        let Some(resource) = resource else { return Some(Err(format!("{arn} names nothing that takes events"))) };
        let sign = SigV4 { keys: self.keys.clone(), region: region.to_owned(), service };
        Some(Ok(HttpTarget {
            auth: HttpAuth::SigV4(Box::new(sign)),
            timeout: TIMEOUT,
            max_in_flight: IN_FLIGHT,
            call: Some(Box::new(Call { arn: arn.to_owned(), resource })),
            ..HttpTarget::to(url)
        }))
    }

    fn url(&self, partition: &str, service: &str, region: &str) -> String {
        let own = self.endpoints.get(service).or(self.endpoint.as_ref());
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        let url = own.cloned().unwrap_or_else(|| format!("https://{service}.{region}.{domain}"));
        url.trim_end_matches('/').to_owned()
    }
}

/// Services that events are sent to, as ARNs name them.
pub const SERVICES: [&str; 7] = ["sqs", "sns", "kinesis", "firehose", "logs", "states", "lambda"];

fn found(service: &str, (account, resource): (&str, &str), url: &str, parameters: Parameters) -> Option<Resource> {
    let Parameters { group, key } = parameters;
    let named = |prefix: &str| resource.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned);
    match service {
        "sqs" => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let name = named("").filter(|name| name.chars().all(plain));
            name.map(|name| Resource::Queue(format!("{url}/{account}/{name}"), group))
        }
        "sns" => named("").map(|_| Resource::Topic(group)),
        "kinesis" => {
            let key = key.or_else(|| JsonPath::parse("$.id").ok());
            named("stream/").map(|name| Resource::Stream(name, key))
        }
        "firehose" => named("deliverystream/").map(Resource::DeliveryStream),
        "logs" => named("log-group:").map(|name| Resource::LogGroup(name.trim_end_matches(":*").to_owned())),
        "states" => named("stateMachine:").map(|_| Resource::StateMachine),
        _ => named("function:").map(|_| Resource::Function),
    }
}
