CREATE TABLE `owner` (`name` text NOT NULL);
--> statement-breakpoint
CREATE TABLE `kinds` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`label` text NOT NULL,
	`boolean` integer,
	`large` blob,
	`when` integer,
	`ratio` real,
	`text` text,
	`bytes` blob,
	`json` text
);
--> statement-breakpoint
CREATE TABLE `people` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `people_name_unique` ON `people` (`name`);
