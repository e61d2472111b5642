// The AWS SDK for JavaScript against the endpoint given as the first argument; started by tests/clients.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

const home = process.env.SLUICE_CLIENTS;
const sdk = createRequire(`${home}/`)("@aws-sdk/client-eventbridge");
const { EventBridgeClient, PutEventsCommand, TestEventPatternCommand } = sdk;
const version = JSON.parse(readFileSync(`${home}/node_modules/@aws-sdk/client-eventbridge/package.json`, "utf8")).version;

const CLIENT = "sdk-js";
const BUS = "Orders";
const RUN = randomUUID().slice(0, 8);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const client = new EventBridgeClient({ endpoint: process.argv[2], maxAttempts: 1 });

let [made, calls, instead] = [0, 0, null]; // instead: what to send in place of the next request
const [accepted, eventIds] = [[], []];

client.middlewareStack.add(
    (next) => (args) => {
        if (instead) {
            args.request.headers["x-amz-target"] = `AWSEvents.${instead.action}`;
            args.request.body = instead.body;
            args.request.headers["content-length"] = String(instead.body.length);
            instead = null;
        }
        return next(args);
    },
    { step: "build", priority: "low" },
);

function fail(what) {
    throw new Error(what);
}

function check(what, got, want) {
    // As they go over the wire: without members that are undefined, in any order.
    const plain = (value) => JSON.parse(JSON.stringify(value ?? null));
    if (!isDeepStrictEqual(plain(got), plain(want))) fail(`${what}: got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
}

/** A good entry with an id of its own; a member given as undefined is left out. */
function entry(change = {}) {
    made += 1;
    return {
        EventBusName: BUS,
        Source: "com.example.clients",
        DetailType: "ClientTest",
        Detail: JSON.stringify({ id: `${CLIENT}-${RUN}-${made}`, client: CLIENT }),
        ...change,
    };
}

function call(command) {
    calls += 1;
    return client.send(command);
}

const act = (action, members) => call(new sdk[`${action}Command`](members));
const putEvents = (...entries) => call(new PutEventsCommand({ Entries: entries }));
const testPattern = (pattern, event) =>
    call(new TestEventPatternCommand({ EventPattern: pattern, Event: typeof event === "string" ? event : JSON.stringify(event) }));

/** Sends entries that are all good. */
async function put(what, ...entries) {
    const answer = await putEvents(...entries);
    check(`${what}: status`, answer.$metadata.httpStatusCode, 200);
    check(`${what}: FailedEntryCount`, answer.FailedEntryCount, 0);
    check(`${what}: number of answers`, answer.Entries.length, entries.length);
    entries.forEach((sent, at) => taken(what, sent, answer.Entries[at]));
}

function taken(what, sent, got) {
    check(`${what}: members`, Object.keys(got), ["EventId"]);
    if (!UUID.test(got.EventId)) fail(`${what}: EventId ${got.EventId} is no UUID`);
    if (eventIds.includes(got.EventId)) fail(`${what}: EventId ${got.EventId} a second time`);
    if ((sent.EventBusName ?? "").split("/").at(-1) === BUS) {
        accepted.push(JSON.parse(sent.Detail).id);
        eventIds.push(got.EventId);
    }
}

async function refused(what, code, message, request) {
    const error = await request().then(
        (answer) => fail(`${what}: want ${code}, got ${JSON.stringify(answer)}`),
        (error) => error,
    );
    if (!error.$metadata?.httpStatusCode) throw error;
    check(`${what}: code (${error.message})`, error.name, code);
    check(`${what}: status`, error.$metadata.httpStatusCode, 400);
    if (!message.test(error.message)) fail(`${what}: message ${JSON.stringify(error.message)} does not match ${message}`);
}

function raw(action, body) {
    instead = { action, body: new TextEncoder().encode(body) };
    return putEvents();
}

async function main() {
    await put("one good entry", entry());

    const required = (name) => ({
        ErrorCode: "InvalidArgument",
        ErrorMessage: `Parameter ${name} is not valid. Reason: ${name} is a required argument.`,
    });
    const malformed = { ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed." };
    const good = entry();
    const mixed = [
        [good, null],
        [entry({ Source: undefined }), required("Source")],
        [entry({ DetailType: undefined }), required("DetailType")],
        [entry({ Detail: undefined }), required("Detail")],
        [entry({ Detail: "not json" }), malformed],
        [entry({ Detail: "[1]" }), malformed],
        [
            entry({ Source: "aws.ec2" }),
            { ErrorCode: "NotAuthorizedForSourceException", ErrorMessage: "Not authorized for the source." },
        ],
    ];
    const answer = await putEvents(...mixed.map(([sent]) => sent));
    check("mixed: status", answer.$metadata.httpStatusCode, 200);
    check("mixed: FailedEntryCount", answer.FailedEntryCount, 6);
    check("mixed: number of answers", answer.Entries.length, 7);
    taken("mixed: the good entry", good, answer.Entries[0]);
    mixed.forEach(([, want], at) => {
        const { EventId, ErrorCode, ErrorMessage } = answer.Entries[at];
        if (want) check(`mixed: entry ${at}`, { EventId, ErrorCode, ErrorMessage }, want);
    });

    await put("ten entries", ...Array.from({ length: 10 }, () => entry()));
    await refused(
        "eleven entries",
        "ValidationException",
        /^1 validation error detected: Value '\[PutEventsRequestEntry\(.*\)\]' at 'entries' failed to satisfy constraint: Member must have length less than or equal to 10$/s,
        () => putEvents(...Array.from({ length: 11 }, () => entry())),
    );
    await refused("no entries", "ValidationException", /./, () => putEvents());
    await refused(
        "too large",
        "ValidationException",
        /^Total size of the entries in the request is over the limit\.$/,
        () => putEvents(entry({ Detail: JSON.stringify({ id: `${CLIENT}-${RUN}-large`, pad: "x".repeat(256 * 1024) }) })),
    );

    await put("a bus that does not exist", entry({ EventBusName: `nowhere-${RUN}` }));
    await put("the default bus", entry({ EventBusName: undefined }), entry({ EventBusName: "default" }));
    await put("the bus by its ARN", entry({ EventBusName: `arn:aws:events:eu-west-1:000000000000:event-bus/${BUS}` }));
    await put(
        "every member",
        entry({
            Time: new Date("2024-01-31T09:00:00.500Z"),
            Resources: ["arn:aws:s3:::shop", "x"],
            TraceHeader: "Root=1-65ba0d50-000000000000000000000001;Parent=0000000000000001;Sampled=1",
        }),
    );

    await refused("body no JSON", "SerializationException", /^/, () => raw("PutEvents", "not json"));
    await refused("no such action", "UnknownOperationException", /^/, () => raw("PutNothing", "{}"));

    const event = {
        version: "0",
        id: "e-1",
        "detail-type": "OrderPlaced",
        source: "com.example.shop",
        account: "000000000000",
        time: "2024-01-31T09:00:00Z",
        region: "eu-west-1",
        resources: [],
        detail: { total: 900, country: "CH" },
    };
    const pattern = '{"source":["com.example.shop"],"detail":{"total":[{"numeric":[">=",500]}]}}';
    check("a pattern that matches", (await testPattern(pattern, event)).Result, true);
    check("a pattern that does not", (await testPattern(pattern, { ...event, detail: { total: 499.99 } })).Result, false);
    await refused(
        "a bad pattern",
        "InvalidEventPatternException",
        /^Event pattern is not valid\. Reason: Empty arrays are not allowed/,
        () => testPattern('{"source":[]}', event),
    );
    for (const bad of ["[]", "not json", { ...event, id: undefined }]) {
        await refused(`event ${JSON.stringify(bad)}`, "ValidationException", /^Parameter Event is not valid\.$/, () =>
            testPattern(pattern, bad),
        );
    }

    await manage();

    console.log(
        JSON.stringify({ client: CLIENT, version, calls, events_ok: accepted.length, ids: accepted, event_ids: eventIds }),
    );
}

/** Makes what there is to make, reads it as the SDK reads answers, and removes it. */
async function manage() {
    const name = `js-${RUN}`;
    const bus = (await act("CreateEventBus", { Name: name, Tags: [{ Key: "k", Value: "v" }] })).EventBusArn;
    check("the bus's ARN", bus, `arn:aws:events:eu-west-1:000000000000:event-bus/${name}`);
    await refused("the bus again", "ResourceAlreadyExistsException", /already exists\.$/, () =>
        act("CreateEventBus", { Name: name }),
    );
    check("its tags", (await act("ListTagsForResource", { ResourceARN: bus })).Tags, [{ Key: "k", Value: "v" }]);
    if (!((await act("DescribeEventBus", { Name: bus })).CreationTime instanceof Date)) fail("the bus has no date");

    const rules = ["a", "b", "c"];
    for (const rule of rules) {
        await act("PutRule", { Name: rule, EventBusName: name, EventPattern: '{"source":["js"]}', State: "ENABLED" });
    }
    const listed = [];
    for (let token = undefined, first = true; first || token; first = false) {
        const page = await act("ListRules", { EventBusName: name, Limit: 2, NextToken: token });
        listed.push(...page.Rules.map((rule) => rule.Name));
        token = page.NextToken;
    }
    check("rules by pages", listed, rules);
    await act("DisableRule", { Name: "a", EventBusName: name });
    check("a disabled rule", (await act("DescribeRule", { Name: "a", EventBusName: name })).State, "DISABLED");

    const target = {
        Id: "t",
        Arn: "arn:aws:logs:eu-west-1:000000000000:log-group:/js",
        InputTransformer: { InputPathsMap: { id: "$.detail.id" }, InputTemplate: '{"id": <id>}' },
        RetryPolicy: { MaximumRetryAttempts: 2, MaximumEventAgeInSeconds: 60 },
    };
    const put = await act("PutTargets", { Rule: "a", EventBusName: name, Targets: [target] });
    check("targets", put.FailedEntryCount, 0);
    check("a target", (await act("ListTargetsByRule", { Rule: "a", EventBusName: name })).Targets, [target]);
    const led = await act("ListRuleNamesByTarget", { TargetArn: target.Arn, EventBusName: name });
    check("rules that lead there", led.RuleNames, ["a"]);

    const connection = await act("CreateConnection", {
        Name: name,
        AuthorizationType: "API_KEY",
        AuthParameters: { ApiKeyAuthParameters: { ApiKeyName: "x-key", ApiKeyValue: "secret" } },
    });
    check("a connection", connection.ConnectionState, "AUTHORIZED");
    const shown = await act("DescribeConnection", { Name: name });
    check("its parameters", shown.AuthParameters, { ApiKeyAuthParameters: { ApiKeyName: "x-key" } });
    const destination = { Name: name, ConnectionArn: connection.ConnectionArn, HttpMethod: "POST" };
    await act("CreateApiDestination", { ...destination, InvocationEndpoint: "https://example.com/js" });
    check("a rate", (await act("DescribeApiDestination", { Name: name })).InvocationRateLimitPerSecond, 300);

    const archive = await act("CreateArchive", { ArchiveName: name, EventSourceArn: bus, RetentionDays: 1 });
    const [from, to] = [new Date(Date.now() - 3600000), new Date()];
    const times = { EventStartTime: from, EventEndTime: to, Destination: { Arn: bus } };
    await act("StartReplay", { ReplayName: name, EventSourceArn: archive.ArchiveArn, ...times });
    let replay;
    for (const end = Date.now() + 20000; replay?.State !== "COMPLETED"; ) {
        if (Date.now() > end) fail(`the replay is ${replay?.State}`);
        replay = await act("DescribeReplay", { ReplayName: name });
    }
    // Dates go over the wire in whole milliseconds at most.
    check("the replay's begin", Math.floor(replay.EventStartTime / 1000), Math.floor(from / 1000));

    await act("DeleteArchive", { ArchiveName: name });
    await act("DeleteApiDestination", { Name: name });
    await act("DeleteConnection", { Name: name });
    await refused("a bus with rules", "ValidationException", /can't be deleted since it has rules/, () =>
        act("DeleteEventBus", { Name: name }),
    );
    await act("RemoveTargets", { Rule: "a", EventBusName: name, Ids: ["t"] });
    for (const rule of rules) await act("DeleteRule", { Name: rule, EventBusName: name });
    await act("DeleteEventBus", { Name: name });
    await refused("a bus that is gone", "ResourceNotFoundException", /does not exist\.$/, () =>
        act("DescribeEventBus", { Name: name }),
    );
}

main().catch((error) => {
    console.error(`${CLIENT}: ${error.message}`);
    process.exit(1);
});
