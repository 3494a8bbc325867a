// Runs SQL from the standard input in the folder it is started in; prints the last statement's rows as CSV.
import {readFileSync} from 'node:fs';
import {DuckDBInstance} from '@duckdb/node-api';

const database = await DuckDBInstance.create(':memory:');
const connection = await database.connect();
const result = await connection.runAndReadAll(readFileSync(0, 'utf8'));
for (const row of [result.columnNames(), ...result.getRows()]) console.log(row.join(','));
