// Which deliveries the official library takes: cases on standard input, true or false for each on standard output.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const verified = ({ secret, headers, body }) => {
  const key = secret.startsWith("whsec_") ? secret : Buffer.from(secret).toString("base64");
  try {
    new Webhook(key).verify(Buffer.from(body), headers);
    return true;
  } catch {
    return false;
  }
};
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(verified)));
