-- What came after the audit trail: links between devices, jobs and files that somebody asked for, kinds of blueprints.
SELECT audited('relation', 'relation', '{parent_id,key,child_id}', '{project_id,created_at}');
SELECT audited('job', 'job', '{number}',
    '{project_id,state,position,done,total,result,error,turn_at,created_at,started_at,finished_at}');
SELECT audited('import_file', 'import_file', '{id}', '{project_id,head,created_at}');
DROP TRIGGER audited ON blueprint;
SELECT audited('blueprint', 'blueprint', '{id}', '{project_id,revision,created_at,changed_at}');
